"""Every route demands its permission: without exactly this one it refuses, in the vendor's form, and does nothing."""

from __future__ import annotations

import re
import uuid

import pytest

from snapkeep.plugins.nutanix_files import PLUGIN
from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.kit.web import Answer, Route, Router
from snapkeep.simulators.nutanix_files import app
from snapkeep.simulators.nutanix_files.app import all_routes
from snapkeep.simulators.nutanix_files.guards import Handler
from snapkeep.simulators.nutanix_files.testing import Api
from snapkeep.simulators.nutanix_files.world import Call

ROUTES = all_routes().routes
EVERY = sorted({str(route.permission) for route in ROUTES})


def named(route: Route[Handler]) -> str:
    return f"{route.method} {route.template}"


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_a_route_refuses_who_lacks_its_permission_alone(simulator: SimulatorProcess, route: Route[Handler]) -> None:
    path = re.sub(r"\{[^}]*\}", lambda _: str(uuid.uuid4()), route.template.replace("{version}", "v4.0"))
    for permissions, refused in (
        ([each for each in EVERY if each != route.permission], True),
        ([str(route.permission)], False),
    ):
        account = {"name": "narrow", "password": "narrow", "api_key": "narrow", "permissions": permissions}
        simulator.control("POST", "/accounts", account)
        client = Api(simulator, api_key="narrow")
        reply = client.call(route.method, path, None if route.method in {"GET", "DELETE"} else {})
        client.close()
        assert (reply.status == 403) is refused, reply.raw
        if refused:
            (message,) = reply.data["error"]
            assert (message["code"], message["severity"]) == ("FILES-10403", "ERROR")
            assert message["argumentsMap"] == {"permission": route.permission}


def test_a_route_without_a_permission_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        router: Router[Handler] = Router()

    @Module.router.on("GET", "/open/to/all")
    def handler(call: Call) -> Answer:
        raise AssertionError(call)

    monkeypatch.setattr(app, "MODULES", (Module,))
    with pytest.raises(RuntimeError, match="GET /open/to/all has declared no permission"):
        all_routes()


def test_the_plugin_names_the_requests_that_its_rights_allow() -> None:
    """What an administrator looks up by its request is the same right that is demanded for it."""

    def plain(template: str) -> str:
        return re.sub(r"\{[^}]*\}", "{}", template.replace("{version}", "v4.0"))

    served = {(route.method, plain(route.template)): route.permission for route in ROUTES}
    told = {
        (method, plain(template)): right
        for right, requests in PLUGIN.allows.items()
        for method, template in (request.split() for request in requests)
    }
    assert {request: served[request] for request in told} == told
    assert set(told.values()) == {right for rights in PLUGIN.permissions.values() for right in rights}
