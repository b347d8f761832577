"""Addresses to which nobody can have us connect: looked at when the connection is made, whatever the name said."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep import addresses
from snapkeep.model.errors import InvalidInput, SnapkeepError, Unavailable
from snapkeep.plugin.http import open_session
from snapkeep.plugin.settings import HttpsSettings
from snapkeep.plugins.linux_host import PLUGIN
from snapkeep.plugins.linux_host.settings import LinuxHostSettings
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.opening import open_backend
from snapkeep.server.settings import ServerSettings

METADATA = "169.254.169.254"


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    yield
    addresses.allow(())


def refused(address: str) -> bool:
    try:
        addresses.require_allowed("host", address)
    except InvalidInput as error:
        assert "SNAPKEEP_ALLOWED_ADDRESSES" in error.next_step
        return True
    return False


@pytest.mark.parametrize(
    "address",
    [
        METADATA, "169.254.0.1", "fe80::1", "fe80::1%eth0", "[fe80::1]", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1",
        "239.255.255.250", "ff02::1", "255.255.255.255", "fd00:ec2::254", "100.100.100.200", "192.0.0.192",
        "168.63.129.16", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_what_is_refused(address: str) -> None:
    assert refused(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "8.8.8.8", "2001:db8::1", "fd00::1",
     "64:ff9b::a00:1", "::ffff:10.0.0.1", "a name"],
)  # fmt: skip
def test_what_is_not(address: str) -> None:
    assert not refused(address)


@given(st.ip_addresses(v=4))
def test_an_address_and_the_ipv6_form_of_it_are_judged_alike(address: ipaddress.IPv4Address) -> None:
    assert refused(str(address)) == refused(f"::ffff:{address}") == refused(f"64:ff9b::{address}")


def test_what_the_operator_allows() -> None:
    addresses.allow([ipaddress.ip_network("169.254.0.0/17")])
    assert not refused("169.254.1.1")
    assert not refused("::ffff:169.254.1.1")
    assert refused(METADATA)
    settings = ServerSettings.read(allowed_addresses="169.254.0.0/17, fe80::/64")
    assert settings.allowed_addresses == ("169.254.0.0/17", "fe80::/64")
    for wrong in ("nonsense", "169.254.0.1/16"):
        with pytest.raises(InvalidInput):
            ServerSettings.read(allowed_addresses=wrong)


# -- who connects ------------------------------------------------------------------------------------------------------
def https(host: str, port: int, **more: Any) -> HttpsSettings:
    return HttpsSettings.parse({"host": host, "port": port, "retry_seconds": 0, "request_seconds": 5, **more})


async def ask(settings: HttpsSettings) -> SnapkeepError:
    with pytest.raises(SnapkeepError) as caught:
        async with open_session(settings) as session:
            await session.request("GET", "/latest/meta-data/")
    return caught.value


@pytest.mark.parametrize("more", [{}, {"fingerprint": "0" * 64}])
async def test_https(more: dict[str, Any]) -> None:
    for host in (METADATA, "0.0.0.0", "::ffff:169.254.169.254", "fe80::1"):
        error = await ask(https(host, 443, **more))
        assert isinstance(error, InvalidInput), host
        assert "does not connect to link-local" in error.message


async def test_ssh() -> None:
    for settings in ({"host": METADATA}, {"host": "10.0.0.1", "jump": f"u@{METADATA}:22,other"}):
        async with PLUGIN.connect(LinuxHostSettings.parse({"host_key": None, **settings})) as roles:
            with pytest.raises(InvalidInput, match="link-local"):
                async for _ in roles.discover.discover(None):
                    pass


@pytest.mark.parametrize(
    ("jump", "host"),
    [("a", "a"), ("u@a:2222", "a"), ("u@[fe80::1]:22,b", "fe80::1"), ("fe80::1", "fe80::1"), ("a,b", "a")],
)
def test_the_first_of_the_hosts_on_the_way(jump: str, host: str) -> None:
    from snapkeep.plugin.commands.ssh import first_hop

    assert first_hop(jump) == host


@pytest.mark.parametrize(
    "location", [f"s3:http://{METADATA}/bucket", "s3:https://[fe80::1]:9000/bucket", f"sftp:u@{METADATA}:/r"]
)
def test_repositories(location: str) -> None:
    secrets = {"access_key": "a", "secret_key": "s"} if location.startswith("s3") else {}
    backend = open_backend(location, secrets)
    try:
        with pytest.raises(InvalidInput, match="link-local"):
            backend.load(FileKind.CONFIG, "")
    finally:
        backend.close()


# -- names that lead elsewhere -----------------------------------------------------------------------------------------
class Names:
    """A resolver whose answers change; what is no name of ours goes to the real one."""

    def __init__(self, answers: list[str]) -> None:
        self.real = socket.getaddrinfo
        self.answers = answers
        self.asked = 0

    def __call__(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in {"rebind.test", b"rebind.test"}:
            return self.real(host, port, *arguments, **options)
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return self.real(answer, port, *arguments, **options)


async def test_a_name_that_leads_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names([METADATA]))
    assert isinstance(await ask(https("rebind.test", 443)), InvalidInput)


async def test_a_name_that_leads_elsewhere_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an attack by DNS: the address that was looked at is not the one to which the connection goes."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(100))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.2", 0)
    port = listener.sockets[0].getsockname()[1]
    monkeypatch.setattr(addresses, "REFUSED", (ipaddress.ip_network("127.0.0.2/32"),))
    monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.1", "127.0.0.2"]))
    error = await ask(https("rebind.test", port))
    assert isinstance(error, InvalidInput), error
    listener.close()
    await asyncio.sleep(0.1)
    assert b"".join(got) == b"", "nothing was sent to it"


async def test_who_does_not_listen_is_out_of_reach_as_before() -> None:
    for more in ({}, {"fingerprint": "0" * 64}):
        assert isinstance(await ask(https("127.0.0.1", 1, **more)), Unavailable)
        assert isinstance(await ask(https("nowhere.invalid", 443, **more)), Unavailable)
