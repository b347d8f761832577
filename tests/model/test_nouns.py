"""Names that mark ours, and addresses in their normal form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import InvalidInput, Unsupported
from snapkeep.model.exports import BackupHost
from snapkeep.model.snapshots import Snapshot, is_owned_name, new_snapshot_name
from snapkeep.plugin.guards import require_address, require_confirmation, require_older, require_same_asset

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,19}", fullmatch=True),
    st.integers(946_684_800, 7_258_118_400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
def test_names_carry_the_mark_and_21_digits(prefix: str, when: datetime) -> None:
    name = new_snapshot_name(prefix, when)
    assert len(name) == len(prefix) + 21
    assert is_owned_name(prefix, name)


def test_names_sort_by_time_and_any_number_of_digits_is_ours() -> None:
    names = [new_snapshot_name("NB", NOW + timedelta(seconds=step)) for step in range(100)]
    assert names == sorted(names)
    assert is_owned_name("NB", "NB1")
    for foreign in ("NB", "NBx1", "xNB1", "nb1", "NB1 ", "NB1\n", "NB\u0661"):
        assert not is_owned_name("NB", foreign)


def test_an_asset_refuses_with_the_reason() -> None:
    asset = Asset(
        id="1", kind=AssetKind.SHARE, name="s", capabilities=frozenset(), refusals={Capability.CREATE: "it is nested"}
    )
    with pytest.raises(Unsupported, match="it is nested"):
        asset.require(Capability.CREATE)
    with pytest.raises(Unsupported, match="does not offer"):
        asset.require(Capability.LOCK)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:0DB8:0:0::1", "2001:db8::1"),
        ("Backup1.Example.ORG", "backup1.example.org"),
        ("under_score", "under_score"),
    ],
)
def test_addresses_have_one_form(written: str, normal: str) -> None:
    host = BackupHost(name="h", address=written)
    assert host.address == normal
    require_address(host)


@pytest.mark.parametrize("bad", ["", " ", "a b", "../x", "a..b", "-a", "1.2.3", "300.1.1.1", "a\n", "x" * 254, "ü.org"])
def test_what_is_no_address(bad: str) -> None:
    with pytest.raises(InvalidInput):
        require_address(BackupHost(name="h", address=bad))


def test_guards() -> None:
    asset = Asset(id="1", kind=AssetKind.SHARE, name="s")
    old = Snapshot(id="a", asset_id="1", name="a", created_at=NOW)
    new = Snapshot(id="b", asset_id="1", name="b", created_at=NOW + timedelta(1))
    require_confirmation(asset, "s")
    require_same_asset(asset, old, new, None)
    require_older(old, new)
    require_older(None, new)
    with pytest.raises(InvalidInput, match="not confirmed"):
        require_confirmation(asset, "S")
    with pytest.raises(InvalidInput, match="not one of"):
        require_same_asset(asset, Snapshot(id="x", asset_id="2", name="x"))
    with pytest.raises(InvalidInput, match="newer"):
        require_older(new, old)
    with pytest.raises(InvalidInput, match="same"):
        require_older(old, old)
