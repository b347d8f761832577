"""Logs: one form for all lines, each about an operation says which one, and never a secret."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_health import hidden_table
from tests.support.installation import Installation, Json, installed, until

from snapkeep.model.errors import SnapkeepError
from snapkeep.server.logs import masked_text

LIBRARIES = """
import asyncio, logging, threading, warnings
import structlog
from snapkeep.server import logs
import snapkeep.operations.engine  # with DBOS, which has a handler of its own
from dbos._logger import dbos_logger, init_logger

logs.configure("FORM", "DEBUG")
init_logger()
for name in ("uvicorn.error", "asyncio", "sqlalchemy.pool", "dbos", "other"):
    logging.getLogger(name).warning("warned by %s", name)
    logging.getLogger(name).debug("below")
logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=ValueError("told elsewhere"))
with structlog.contextvars.bound_contextvars(operation="op-1", worker="w"):
    try:
        raise ValueError("at postgresql+psycopg://snapkeep:CANARY@db/catalog")
    except ValueError:
        logging.getLogger("sqlalchemy.engine").exception("failed with password=CANARY")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: int("x"), name="poor")
thread.start()
thread.join()
structlog.get_logger("own").info(
    "said", password="CANARY", headers={"Authorization": "Bearer CANARY"}, settings=[{"api_key": "CANARY"}],
    url="https://user:CANARY@host/path", count=3, nothing=None, tokens_left=4,
)
"""


def run_libraries(form: str) -> str:
    code = LIBRARIES.replace("FORM", form)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def test_lines_of_libraries_have_our_form() -> None:
    lines = [json.loads(line) for line in run_libraries("json").splitlines()]
    assert [line["event"] for line in lines if line["event"].startswith("warned")] == [
        f"warned by {name}" for name in ("uvicorn.error", "asyncio", "sqlalchemy.pool", "dbos", "other")
    ]
    assert all({"level", "timestamp", "event"} <= line.keys() for line in lines)
    failed = next(line for line in lines if line["event"].startswith("failed"))
    assert (failed["operation"], failed["worker"], failed["logger"]) == ("op-1", "w", "sqlalchemy.engine")
    assert "Traceback" in failed["exception"]
    assert any("UserWarning: a warning" in line["event"] for line in lines)
    died = next(line for line in lines if line["event"] == "a thread died")
    assert (died["thread"], "invalid literal" in died["exception"]) == ("poor", True)
    assert len(lines) == 9


def test_secrets_are_masked_in_both_forms() -> None:
    for form in ("json", "text"):
        said = run_libraries(form)
        assert "CANARY" not in said
        assert "told elsewhere" not in said
        assert "at postgresql+psycopg://***@db/catalog" in said
    said = json.loads(run_libraries("json").splitlines()[-1])
    assert (said["password"], said["headers"], said["settings"]) == (
        "***",
        {"Authorization": "***"},
        [{"api_key": "***"}],
    )
    assert (said["url"], said["count"], said["nothing"], said["tokens_left"]) == ("https://***@host/path", 3, None, 4)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@ss@h:1/d is away", "postgresql://***@h:1/d is away"),
        ("Authorization: Bearer abc.DEF-123", "Authorization: Bearer ***"),
        ("{'password': 'two words', 'x': 1}", "{'password': ***, 'x': 1}"),
        ("host=h password=abc dbname=d", "host=h password=*** dbname=d"),
        ("password authentication failed for user x", "password authentication failed for user x"),
        ("The request has no valid token", "The request has no valid token"),
        ("GET https://host/path?at=a@b", "GET https://host/path?at=a@b"),
        ("files1/projects@one", "files1/projects@one"),
    ],
)
def test_text_is_masked_only_where_it_is_secret(text: str, shown: str) -> None:
    assert masked_text(text) == shown


def the_main_job(own: Installation) -> dict[str, Json]:
    """Everything once, with an outage of the system and of the database; return the operations by kind."""
    done: dict[str, Json] = {"discover": own.discover()}
    (own.live() / "file").write_text("first")
    own.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    create = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={"name": "one"})
    until(lambda: "taking" in own.rest.request("GET", f"/operations/{create['id']}")["phase"])
    own.simulator.kill()
    until(lambda: "cannot be reached" in own.rest.request("GET", f"/operations/{create['id']}")["phase"])
    own.simulator.start()
    done["create"] = own.rest.wait(create)
    own.simulator.control("PATCH", "/settings", {"task_seconds": 0.1})
    snapshot = own.rest.request("GET", f"/snapshots/{done['create']['result']['snapshot_id']}")
    path = f"/snapshots/{snapshot['id']}"
    done["diff"] = own.run("POST", "/change-lists", {"base_id": None, "new_id": snapshot["id"]})
    done["export"] = own.run("POST", f"{path}/exports", {"host": {"name": "here", "address": "127.0.0.1"}})
    done["deport"] = own.run("DELETE", f"/exports/{done['export']['result']['export_id']}")
    done["restore"] = own.run("POST", f"{path}/restore", {"confirmation": "projects"})
    done["delete"] = own.run("DELETE", path)
    return done


def an_outage_of_the_database(own: Installation) -> None:
    own.simulator.control("PATCH", "/settings", {"task_seconds": 1.0})
    create = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={"name": "two"})
    until(lambda: "taking" in own.rest.request("GET", f"/operations/{create['id']}")["phase"])
    with hidden_table(own.server.data_dir / "catalog.sqlite", "operations"):
        until(lambda: "no such table: operations" in own.server.log.read_text())
        with suppress(SnapkeepError):
            own.rest.request("GET", "/operations")
        time.sleep(1.5)
    until(lambda: own.rest.request("GET", f"/operations/{create['id']}")["ended_at"], 60)


def everything_said(own: Installation) -> Iterable[str]:
    for path in ("/systems", "/systems/files1", "/assets", "/snapshots", "/exports", "/operations", "/plugins"):
        yield json.dumps(own.rest.request("GET", path))
    yield json.dumps(own.rest.request("POST", "/systems/files1/check"))
    yield own.server.log.read_text()
    for file in filter(Path.is_file, own.server.data_dir.rglob("*")):
        if file.name != "token":
            yield file.read_bytes().decode("latin-1")


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_whole_main_job_tells_no_secret(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "CANARY-token-" + base64.urlsafe_b64encode(os.urandom(24)).decode()
    (tmp_path / "server").mkdir(mode=0o700)
    (tmp_path / "server" / "token").write_text(token)
    monkeypatch.setenv("SNAPKEEP_LOG_FORMAT", form)
    monkeypatch.setenv("SNAPKEEP_LOG_LEVEL", "DEBUG")
    with installed(tmp_path) as own:
        own.add_partner_server()
        password, api_key = own.simulator.secrets("backup")
        own.add_system(username="backup")
        own.rest.request("PATCH", "/systems/files1", json={"settings": {"password": password}})
        done = the_main_job(own)
        an_outage_of_the_database(own)
        own.rest.request("PATCH", "/systems/files1", json={"settings": {"password": "CANARY-wrong-1"}})
        with suppress(SnapkeepError):
            own.discover()
        log = own.server.log.read_text()
        assert "Traceback" in log
        basic = base64.b64encode(f"backup:{password}".encode()).decode()
        for said in everything_said(own):
            for secret in (password, api_key, basic, token, "CANARY"):
                assert secret not in said
        if form == "json":
            require_lines([json.loads(line) for line in log.splitlines()], done)
        else:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
            for operation in done.values():
                assert re.search(rf"operation ended .*operation={operation['id']}", plain)


def require_lines(lines: list[dict[str, Any]], done: dict[str, Json]) -> None:
    """Each operation tells of its begin, end and retries, and each of its lines says which one it is."""
    for kind, operation in done.items():
        mine = [line for line in lines if line.get("operation") == operation["id"]]
        assert {(line["kind"], line["system"], line["worker"]) for line in mine} == {(kind, "files1", "serve")}
        told = [line["event"] for line in mine]
        assert told.count("operation begun") == told.count("operation ended") == 1, kind
        end = next(line for line in mine if line["event"] == "operation ended")
        assert end["state"] == "succeeded"
        assert 0 <= end["seconds"] < 60
        if kind == "create":
            assert "request repeated" in told
            retries = [line for line in mine if line["event"] == "the system cannot be reached; tried again"]
            assert retries
            assert all("cannot be reached" in line["reason"] and line["code"] == "unavailable" for line in retries)
