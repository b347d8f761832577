"""What there is to do in a run that makes no recovery point: by what is in the catalog."""

from __future__ import annotations

from typing import Any

import pytest
from tests.policy.test_pruning import asset_of, backed_up, catalog, made
from tests.policy.world import START

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import ChangeListState
from snapkeep.model.errors import NotFound
from snapkeep.model.snapshots import Snapshot
from snapkeep.operations.requester import Requester
from snapkeep.policy.asks import AsksOperations, LeftOut
from snapkeep.policy.document import Step

__all__ = ["catalog"]
BY = Requester("policy:p", "0c9d3a52-3a0e-4a35-8a53-0a5d0f4c6e11")


class Asked:
    """Takes what it is asked for."""

    def __init__(self) -> None:
        self.diffs: list[tuple[str, str]] = []
        self.proofs: list[tuple[str, dict[str, Any]]] = []

    async def diff(self, _: Any, base: Any, new: Any, by: Requester) -> None:
        assert by is BY
        self.diffs.append((base.snapshot.name, new.snapshot.name))

    async def verify(self, _: Any, place: Any, by: Requester, *, data: str) -> None:
        assert by is BY
        self.proofs.append((place.name, {"data": data}))

    async def drill(self, _: Any, place: Any, by: Requester, **how: Any) -> None:
        assert by is BY
        self.proofs.append((place.name, how))


def asks(catalog: Catalog, asked: Asked) -> AsksOperations:
    operations: Any = asked
    return AsksOperations(catalog, operations)


def step(do: str, **values: Any) -> Step:
    given = {} if do == "diff" else {"repository": "vault"}
    return Step.model_validate({"name": "s", "do": do, "schedule": "0 * * * *", **given, **values})


async def test_the_two_newest_of_ours_are_compared_once(catalog: Catalog) -> None:
    asset, asked = await asset_of(catalog), Asked()
    both = asks(catalog, asked)
    await made(catalog, "a", 1)
    await made(catalog, "foreign", 9, policy="")
    undated = Snapshot(id="undated", asset_id="v0", name="undated", owned=True, created_at=None)
    await catalog.inventory.record_batch("id-files1", (), (undated,), seen_by="o")
    with pytest.raises(LeftOut, match="no two snapshots of ours"):
        await both.ask(step("diff"), asset, BY)
    old, new = await made(catalog, "b", 2), await made(catalog, "c", 3)
    await both.ask(step("diff"), asset, BY)
    assert asked.diffs == [("b", "c")]
    begun: dict[str, Any] = {
        "asset_id": asset.id,
        "base_id": old.id,
        "new_id": new.id,
        "source": "system",
        "now": START,
    }
    await catalog.change_lists.begin("one", **begun)
    with pytest.raises(LeftOut, match="the changes from b to c are known already"):
        await both.ask(step("diff"), asset, BY)
    await catalog.change_lists.finish("one", ChangeListState.INCOMPLETE, START, 0, None)
    await both.ask(step("diff"), asset, BY)
    await catalog.change_lists.begin("two", **begun)
    await catalog.change_lists.finish("two", ChangeListState.COMPLETE, START, 0, {})
    with pytest.raises(LeftOut):
        await both.ask(step("diff"), asset, BY)
    await catalog.inventory.mark_gone([new], START)
    await both.ask(step("diff"), asset, BY)
    assert asked.diffs == [("b", "c"), ("b", "c"), ("a", "b")]


async def test_what_was_asked_for_before_a_crash_is_not_left_out(catalog: Catalog) -> None:
    asset, asked = await asset_of(catalog), Asked()
    await catalog.operations.add(
        operation_id=str(BY.operation_id), kind="diff", system_id="id-files1", system_name="files1", asset_id=asset.id,
        queue="default", target="t", request={}, digest=None, requester=BY.name, exclusive=None, now=START,
        not_before=None,
    )  # fmt: skip
    await asks(catalog, asked).ask(step("diff"), asset, BY)
    assert asked.diffs == []
    await asks(catalog, asked).ask(step("verify", data="all"), asset, BY)
    assert asked.proofs == [("vault", {"data": "all"})], "which finds the operation again"


async def test_without_a_recovery_point_there_is_nothing_to_prove(catalog: Catalog) -> None:
    asset, asked = await asset_of(catalog), Asked()
    both = asks(catalog, asked)
    for do in ("verify", "drill"):
        with pytest.raises(LeftOut, match="no recovery point of it in vault yet"):
            await both.ask(step(do), asset, BY)
    await backed_up(catalog, "x", 1, await made(catalog, "a", 1))
    with pytest.raises(NotFound):
        await both.ask(step("verify", repository="elsewhere"), asset, BY)
    assert asked.proofs == []
    for one in (
        step("verify"),
        step("verify", data="all"),
        step("drill"),
        step("drill", files="all", check="fsck.sh"),
        step("drill", files=5, bytes="1M"),
    ):
        assert await both.ask(one, asset, BY) is None
    assert asked.proofs == [
        ("vault", {"data": "sample"}),
        ("vault", {"data": "all"}),
        ("vault", {"files": 20, "most_bytes": 1 << 30, "check": None}),
        ("vault", {"files": None, "most_bytes": 1 << 30, "check": "fsck.sh"}),
        ("vault", {"files": 5, "most_bytes": 1 << 20, "check": None}),
    ]
