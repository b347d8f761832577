"""How consistent a snapshot is: known of what we made, kept whatever is seen later, given to what was there before."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import MetaData, create_engine, insert, select

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database import migrate
from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.snapshots import Consistency, Snapshot

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SHARE = Asset(id="v", kind=AssetKind.SHARE, name="share")


def snapshot(name: str) -> Snapshot:
    return Snapshot(id=name, asset_id="v", name=name, owned=True, created_at=NOW)


async def test_what_is_known_of_a_snapshot_stays(database_url: str) -> None:
    async with open_catalog(database_url, b"k" * 32) as catalog:
        await catalog.systems.add("id", "s", "p", {}, {}, "default", NOW)
        inventory = catalog.inventory
        await inventory.record_batch("id", (SHARE,), (), seen_by="first")
        await inventory.record_made(
            "id",
            snapshot("a"),
            seen_by="create",
            consistency=Consistency.CRASH,
            quiesced=["h/one", "h/two"],
            reason="too late",
        )
        await inventory.record_batch("id", (SHARE,), (snapshot("a"), snapshot("b")), seen_by="second")
        asset = await inventory.find_asset("s", "share")
        first, second = [await inventory.find_snapshot(asset, name) for name in "ab"]
        told = (first.consistency, first.quiesced, first.consistency_reason, first.seen_by)
        assert told == (Consistency.CRASH, ("h/one", "h/two"), "too late", "second")
        assert (second.consistency, second.quiesced, second.consistency_reason) == (None, (), None)


def test_what_was_made_before_is_crash_consistent(database_url: str) -> None:
    engine = create_engine(database_url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        migrate(connection, "0003")
    tables = MetaData()
    tables.reflect(engine)
    system = {"id": "s", "name": "s", "plugin": "p", "settings": {}, "secrets": b"", "created_at": NOW}
    asset = {"id": "a", "system_id": "s", "vendor_id": "a", "kind": "share", "name": "a", "seen_by": "x"}
    lists: dict[str, object] = {"capabilities": [], "refusals": {}, "attributes": {}}
    rows = [
        {"id": name, "system_id": "s", "asset_id": "a", "vendor_id": name, "name": name, "kind": "user", "seen_by": "x"}
        | {"owned": name == "ours"}
        for name in ("ours", "theirs")
    ]
    with engine.begin() as connection:
        connection.execute(insert(tables.tables["systems"]), [system])
        connection.execute(insert(tables.tables["assets"]), [asset | lists])
        connection.execute(insert(tables.tables["snapshots"]), rows)
        migrate(connection, "0004")
    tables = MetaData()
    tables.reflect(engine)
    found = tables.tables["snapshots"]
    with engine.connect() as connection:
        read = connection.execute(select(found.c.id, found.c.consistency).order_by(found.c.id)).all()
    engine.dispose()
    assert [tuple(row) for row in read] == [("ours", "crash"), ("theirs", None)]
