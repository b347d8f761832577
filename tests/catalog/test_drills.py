"""What verifications and drills have found: on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.drills import DrillRecord
from snapkeep.catalog.paging import Paging
from snapkeep.model.access import Scope, ScopeKind

NOW = datetime(2027, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, b"k" * 32) as opened:
        yield opened


def found(name: str, days: float, **values: Any) -> DrillRecord:
    """What was found so many days before now."""
    given: dict[str, Any] = {
        "asset_id": "a", "system_name": "files1", "asset_name": "projects", "repository_id": "r",
        "repository_name": "vault", "backup_id": "b", "kind": "drill", "whole": False, "seconds": 1.5, "files": 20,
        "bytes": 1 << 40, "passed": True, "reason": "",
    } | values  # fmt: skip
    return DrillRecord(operation_id=name, at=NOW - days * DAY, **given)


async def test_how_it_stands(catalog: Catalog) -> None:
    for one in (
        found("old", 9),
        found("proof", 5, kind="verify", whole=True),
        found("sample", 4, kind="verify"),
        found("failed before", 6, passed=False, reason="torn"),
        found("only failed", 1, asset_id="b", passed=False, reason="torn"),
        found("failed since", 1, asset_id="c", passed=False, reason="another"),
        found("failed earlier", 2, asset_id="c", passed=False, reason="one"),
        found("proved before", 3, asset_id="c"),
        found("by a clock that was wrong", -3650, asset_id="c"),
    ):
        await catalog.drills.record(one)
        await catalog.drills.record(one)
    standing = await catalog.drills.standing(["a", "b", "c", "d"], NOW)

    def names(asset_id: str) -> list[str | None]:
        return [one.operation_id if one is not None else None for one in standing[asset_id]]

    assert names("a") == ["proof", None]
    assert names("b") == [None, "only failed"]
    assert names("c") == ["proved before", "failed since"]
    assert "d" not in standing
    assert await catalog.drills.known("proof") == found("proof", 5, kind="verify", whole=True)
    assert await catalog.drills.known("nothing") is None


async def test_they_are_listed_to_whom_may_see_them(catalog: Catalog) -> None:
    for number in range(5):
        await catalog.drills.record(found(f"{number}", number, passed=number != 2, reason=""))
    await catalog.drills.record(found("other", 9, asset_id="b", system_name="files2", repository_name="attic"))
    page = await catalog.drills.find(paging=Paging(limit=4))
    rest = await catalog.drills.find(paging=Paging(limit=4, after=page.next or ""))
    assert [one.operation_id for one in [*page, *rest]] == ["0", "1", "2", "3", "4", "other"]
    assert [one.operation_id for one in await catalog.drills.find(asset_id="b")] == ["other"]
    assert [one.operation_id for one in await catalog.drills.find(passed=False)] == ["2"]
    for kind, value in ((ScopeKind.SYSTEM, "files2"), (ScopeKind.ASSET, "b"), (ScopeKind.REPOSITORY, "attic")):
        seen = await catalog.drills.find(visible=((Scope(kind, value),),))
        assert [one.operation_id for one in seen] == ["other"]
    assert await catalog.drills.find(visible=()) == []


async def test_the_last_proof_outlives_what_is_forgotten(catalog: Catalog) -> None:
    for one in (
        found("long ago", 900),
        found("proof", 500),
        found("sample", 450, kind="verify"),
        found("failed", 420, passed=False, reason="torn"),
        found("lately", 10, kind="verify"),
        found("other proof", 700, asset_id="b"),
        found("proved lately", 3, asset_id="b"),
    ):
        await catalog.drills.record(one)
    await catalog.drills.purge(NOW - 400 * DAY)
    left = {one.operation_id for one in await catalog.drills.find()}
    assert left == {"proof", "lately", "proved lately"}
