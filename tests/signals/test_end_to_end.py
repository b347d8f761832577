"""A share is backed up; then most of its files are encrypted: people are told, and what was clean is held."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.operations.backups import Backups
from tests.support.hooks import Hooks
from tests.support.installation import Installation, Json, installed, until
from tests.support.people import People

from snapkeep.model.errors import Conflict, Locked, PermissionDenied
from snapkeep.signals.scoring import MINIMUM

FILES = 160
WORDS = b"the quick brown fox jumps over the lazy dog and says so to nobody in particular "


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One of its own: holds stay in it."""
    with installed(tmp_path_factory.mktemp("signals")) as installation:
        installation.reset()
        yield installation


def write(own: Installation, number: int, content: bytes) -> None:
    directory = own.live() / f"d{number % 8}"
    directory.mkdir(exist_ok=True)
    (directory / f"{number}.txt").write_bytes(content)


def text(number: int) -> bytes:
    words = WORDS.split()
    random.Random(number).shuffle(words)
    return b" ".join(words) * 60


def lived(own: Installation, backups: Backups) -> list[Json]:
    """Write files, and back up so often that there is something usual."""
    for number in range(FILES):
        write(own, number, text(number))
    made = [backups.make()]
    for day in range(MINIMUM):
        for number in range(20 + day % 3):
            write(own, number + day, text(1000 * day + number))
        made.append(backups.make())
    return made


def signals(own: Installation, **filters: object) -> list[Json]:
    return list(own.rest.pages("/signals", **filters))


def test_from_a_quiet_life_to_an_attack_and_back(own: Installation, tmp_path: Path) -> None:
    backups = Backups(own, tmp_path / "repository")
    policy = {"name": "all", "assets": [{"name": "projects"}], "steps": [
        {"name": "nightly", "do": "backup", "repository": backups.name, "schedule": "0 1 1 1 *", "keep": {"last": 1}},
    ]}  # fmt: skip
    with Hooks().running() as hooks:
        target = {"kind": "webhook", "url": hooks.url}
        own.rest.request("POST", "/channels", json={"name": "ops", "target": target, "events": ["change.suspicious"]})
        made = lived(own, backups)
        quiet = signals(own)
        assert [one["suspicious"] for one in quiet] == [False] * MINIMUM, "the first backup has no list of changes"
        assert {one["repository"] for one in quiet} == {backups.name}
        assert quiet[0]["features"]["entropy"]["files"] >= 16
        assert 3 < quiet[0]["features"]["entropy"]["bits"] < 5
        assert quiet[0]["features"]["extensions"]["txt"] >= 20

        for number in range(FILES - 10):
            write(own, number, os.urandom(4000))
        ran = own.cli("backup", "run", "files1/projects", "--repository", backups.name)
        assert ran.code == 0, ran.err
        assert "SUSPICIOUS: 150 objects modified; usually 20 to 22" in ran.out
        (found,) = signals(own, suspicious=True)
        assert found["reasons"][0] == "150 objects modified; usually 20 to 22"
        assert found["reasons"][1].startswith("8.0 bits of entropy per byte of files that were there before; usually")
        assert found["scores"]["modified"]["z"] > 3.5
        operation = own.rest.request("GET", f"/operations/{found['operation_id']}")
        assert operation["result"]["signal"] == {
            "suspicious": True, "reasons": found["reasons"], "held": f"{clean(made)} in {backups.name}",
        }  # fmt: skip

        (told,) = until(lambda: hooks.got)
        assert told.json["type"] == "change.suspicious"
        assert told.json["data"]["subject"] == "files1/projects"
        assert told.json["data"]["details"]["reasons"] == found["reasons"]
        assert clean(made) in told.json["data"]["message"]

        (hold,) = own.rest.pages("/protections", backup_id=made[-1]["id"])
        assert (hold["kind"], hold["placed_by"], hold["until"]) == ("hold", "signals", None)
        assert hold["reason"].startswith(f"the last one before suspicious changes (signal {found['operation_id'][:8]})")
        with pytest.raises(Locked):
            own.rest.request("DELETE", f"/backups/{made[-1]['id']}", params={"force": True})
        lines = own.rest.request("GET", "/audit", params={"actor": "signals"})["data"]
        assert [(line["action"], line["detail"]["operation"]) for line in lines] == [("hold.place", operation["id"])]
        kept_by_retention(own, policy, made)

        for number in range(20):  # the next list is a quiet one, and the one after that is not: the same is held
            write(own, number, text(number))
        backups.make()
        for number in range(FILES - 10):
            write(own, number, os.urandom(4000))
        backups.make()
        assert len(signals(own, suspicious=True, acknowledged=False)) == 2
        until(lambda: len(hooks.got) == 2)
        assert len(list(own.rest.pages("/protections", ended=True))) == 1, "one hold for the whole incident"
        assert len(own.rest.request("GET", "/audit", params={"actor": "signals"})["data"]) == 1
    acknowledged(own, found["operation_id"])
    assert len(list(own.rest.pages("/protections"))) == 1, "people let go of holds, nobody else"


def clean(made: list[Json]) -> str:
    """The name of the last recovery point before the attack."""
    return f"{made[-1]['asset']}@{made[-1]['snapshot']}"


def kept_by_retention(own: Installation, policy: Json, made: list[Json]) -> None:
    """A policy that keeps one recovery point would delete all others, but not the held one."""
    own.rest.request("PUT", "/policies/all", json={"text": json.dumps(policy)})
    moment = "2026-01-01 01:00:00"
    with closing(sqlite3.connect(own.server.data_dir / "catalog.sqlite")) as database, database:
        for backup in made:  # as if the policy had made them
            database.execute(
                "INSERT INTO policy_runs (operation_id, policy_id, policy, step, asset_id, due_at, state, reason, "
                "claimed_at) SELECT ?, id, name, 'nightly', ?, ?, 'asked', '', ? FROM policies",
                (backup["operation_id"], own.asset()["id"], moment, moment),
            )
    plan = own.cli("policy", "plan", "all").out
    of = {
        backup["id"]: next(line for line in plan.splitlines() if f"@{backup['snapshot']} in" in line) for backup in made
    }
    assert of[made[-1]["id"]].startswith("keep"), plan
    assert "hold (the last one before suspicious changes" in of[made[-1]["id"]]
    assert of[made[-2]["id"]].startswith("delete"), plan


def acknowledged(own: Installation, operation_id: str) -> None:
    people = People(own)
    operator, officer = people.service("op", "operator"), people.service("officer", "security-officer")
    path, body = f"/signals/{operation_id}/acknowledge", {"reason": "we did that"}
    with pytest.raises(PermissionDenied):
        operator.request("POST", path, json=body)
    done = officer.request("POST", path, json=body)
    assert (done["acknowledged_by"], done["acknowledged_reason"]) == ("officer", "we did that")
    assert officer.request("POST", path, json=body) == done
    with pytest.raises(Conflict, match="officer has acknowledged this already"):
        officer.request("POST", path, json={"reason": "another one"})
    ran = own.cli("signal", "list", "files1/projects", "--waiting", "--output", "json")
    assert len(ran.json()) == 1
    other = ran.json()[0]["operation_id"]
    ran = own.cli("signal", "acknowledge", other[:8], "--reason", "that, too")
    assert "Still held: files1/projects@" in ran.out, ran.err
    shown = own.cli("signal", "show", other[:8])
    assert "modified" in shown.out
    assert "that, too" in shown.out
    line = own.rest.request("GET", "/audit", params={"actor": "officer", "outcome": "done"})["data"][0]
    assert line["action"] == "signal.acknowledge"
    assert line["subject"] == "signal of files1/projects"
    people.close()
