"""Keys of the stored secrets: where they come from, and how one follows another without a stop."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from snapkeep.catalog import key_sources
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.key_sources import FixedKeys, KeyCommand, KeyFile, parse_keys
from snapkeep.catalog.secrets import SecretBox, key_id
from snapkeep.catalog.tables import systems
from snapkeep.model.errors import InvalidInput, PermissionDenied, SnapkeepError, Unavailable
from snapkeep.server.settings import ServerSettings, WorkerProcessSettings

NOW = datetime(2026, 11, 28, tzinfo=UTC)
OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def text(*keys: bytes) -> str:
    return "".join(base64.b64encode(key).decode() + "\n" for key in keys)


def first_version(key: bytes, record_id: str, plain: bytes) -> bytes:
    """Seal as the first releases did: no id of the key."""
    nonce = os.urandom(12)
    return b"\x01" + nonce + AESGCM(key).encrypt(nonce, plain, record_id.encode())


# -- the box -----------------------------------------------------------------------------------------------------------
def test_what_is_sealed_opens_with_its_key_whichever_is_the_first() -> None:
    old, both = SecretBox(OLD), SecretBox(FixedKeys((NEW, OLD)))
    sealed = old.seal("a", {"password": "p"})
    assert both.open("a", sealed) == {"password": "p"}
    assert both.key_of("a", sealed) == key_id(OLD) == old.key_ids[0]
    assert both.is_outdated(sealed)
    assert not both.is_outdated(both.seal("a", {}))
    with pytest.raises(Unavailable, match=key_id(NEW)):
        old.open("a", both.seal("a", {"password": "p"}))
    with pytest.raises(InvalidInput):
        both.open("b", sealed)


def test_records_of_before_are_read_on() -> None:
    sealed = first_version(OLD, "a", b'{"password": "p"}')
    both = SecretBox(FixedKeys((NEW, OLD)))
    assert both.open("a", sealed) == {"password": "p"}
    assert both.key_of("a", sealed) == key_id(OLD)
    assert both.is_outdated(sealed)
    assert SecretBox(OLD).is_outdated(sealed)
    with pytest.raises(InvalidInput):
        SecretBox(OTHER).open("a", sealed)


@given(st.binary(max_size=80), st.booleans())
def test_bytes_that_nobody_sealed_are_an_error_of_ours(data: bytes, known: bool) -> None:
    head = b"\x02" + bytes.fromhex(key_id(OLD)) if known else b""
    with pytest.raises((InvalidInput, Unavailable)):
        SecretBox(OLD).open("a", head + data)


@given(st.integers(0, 200), st.integers(1, 255))
def test_no_bit_can_be_changed(place: int, change: int) -> None:
    box = SecretBox(FixedKeys((NEW, OLD)))
    sealed = bytearray(box.seal("a", {"password": "p" * 100}))
    sealed[place % len(sealed)] ^= change
    with pytest.raises((InvalidInput, Unavailable)):
        box.open("a", bytes(sealed))


# -- where keys come from ----------------------------------------------------------------------------------------------
def test_a_file_is_read_again_when_a_record_needs_what_came_into_it(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "secret.key")
    file.path.write_text(text(OLD))
    box = SecretBox(file)
    sealed = SecretBox(FixedKeys((NEW, OLD))).seal("a", {"password": "p"})
    with pytest.raises(Unavailable) as caught:
        box.open("a", sealed)
    assert key_id(NEW) in str(caught.value)
    assert str(file.path) in caught.value.next_step
    file.write([OLD, NEW])
    assert box.open("a", sealed) == {"password": "p"}
    assert box.key_ids == (key_id(OLD), key_id(NEW))
    file.path.write_text("rubbish")
    with pytest.raises(InvalidInput):
        box.refresh()
    assert box.open("a", sealed) == {"password": "p"}, "the keys that were read stay"


def test_a_file_of_keys_is_written_whole_and_for_the_owner(tmp_path: Path) -> None:
    target = tmp_path / "real"
    target.write_text(text(OLD))
    (tmp_path / "secret.key").symlink_to(target)
    file = KeyFile(tmp_path / "secret.key")
    file.write([NEW, OLD])
    assert file.read() == (NEW, OLD)
    assert file.path.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real", "secret.key"]
    with pytest.raises(PermissionDenied):
        KeyFile(tmp_path / "none" / "secret.key").write([NEW])


@pytest.mark.parametrize("wrong", ["", " \n", "CANARY1 CANARY2", text(b"short"), text(OLD) + "!", "a" * 44])
def test_what_is_no_key_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_keys(wrong, "SOMEWHERE")
    assert "SOMEWHERE" in caught.value.message
    for word in wrong.split():
        assert word not in str(caught.value.to_dict())


def command(code: str) -> KeyCommand:
    return KeyCommand((sys.executable, "-c", code))


def test_keys_of_a_command() -> None:
    assert command(f"print({text(NEW)!r}, {text(OLD)!r})").read() == (NEW, OLD)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('CANARY'); print('CANARY', file=sys.stderr); sys.exit(3)", "failed with 3"),
        ("print('CANARY')", "does not hold a key"),
        ("import time; print('CANARY', flush=True); time.sleep(60)", "did not end within"),
    ],
)
def test_a_command_that_gives_none(monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    monkeypatch.setattr(key_sources, "COMMAND_SECONDS", 1.0 if "sleep" in code else 30.0)
    with pytest.raises(InvalidInput, match=said) as caught:
        command(code).read()
    assert "CANARY" not in str(caught.value.to_dict())
    assert caught.value.__context__ is None or "CANARY" not in repr(caught.value.__cause__)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match="cannot be run"):
        KeyCommand(("/nowhere/CANARY",)).read()


def test_the_settings_name_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = ServerSettings.read(data_dir=tmp_path)
    assert settings.keys() == KeyFile(tmp_path / "secret.key")
    monkeypatch.setenv("SNAPKEEP_SECRET_KEY", text(NEW, OLD))
    worker = WorkerProcessSettings.read(data_dir=tmp_path, name="w1")
    assert worker.keys().read() == (NEW, OLD)
    assert text(NEW).strip() not in repr(worker)
    assert "SNAPKEEP_SECRET_KEY" not in os.environ, "programs that we start need not know it"
    settings = ServerSettings.read(data_dir=tmp_path, secret_key_command="vault-key --name 'a b'")
    assert settings.keys() == KeyCommand(("vault-key", "--name", "a b"))
    for other in ({"secret_key_file": tmp_path / "x"}, {"secret_key": text(OLD)}):
        with pytest.raises(InvalidInput, match="in several ways"):
            ServerSettings.read(data_dir=tmp_path, secret_key_command="x", **other).keys()


# -- one key follows another -------------------------------------------------------------------------------------------
async def fill(catalog: Catalog, number: int) -> None:
    for each in range(number):
        await catalog.systems.add(f"s{each:03}", f"s{each}", "p", {}, {"password": f"p{each}"}, "default", NOW)
    await catalog.repositories.add(
        "r", name="r", location="/r", restic_id="0", secrets={"password": "r"}, queue="default", now=NOW
    )


async def passwords(catalog: Catalog) -> list[str]:
    systems = [await catalog.systems.all_settings(item) for item in await catalog.systems.find()]
    return [*sorted(item["password"] for item in systems), (await catalog.repositories.secrets("r"))["password"]]


async def test_everything_is_sealed_anew(database_url: str) -> None:
    async with open_catalog(database_url, OLD) as catalog:
        await fill(catalog, 120)
        before = await passwords(catalog)
        derived = await catalog.derived_key("audit")
        assert await catalog.sealing.needed() == {key_id(OLD): 123}, "with the proof, and the root"
        assert await catalog.sealing.seal_anew() == 0
    async with open_catalog(database_url, FixedKeys((NEW, OLD))) as catalog:
        assert await catalog.sealing.seal_anew() == 123
        assert await catalog.sealing.needed() == {key_id(NEW): 123}
    async with open_catalog(database_url, NEW) as catalog:
        assert await passwords(catalog) == before
        assert await catalog.derived_key("audit") == derived, "what is derived is not of the key"
        assert await catalog.derived_key("other") != derived
    with pytest.raises(InvalidInput, match="does not belong to this catalog"):
        async with open_catalog(database_url, OLD):
            pass


async def test_records_of_the_first_version_are_sealed_anew_too(database_url: str) -> None:
    async with open_catalog(database_url, OLD) as catalog:
        await fill(catalog, 1)
        sealing = catalog.sealing
        async with catalog.database.begin() as connection:
            old = first_version(OLD, "s000", b'{"password": "p0"}')
            await connection.execute(update(systems).values(secrets=old))
        assert await sealing.needed() == {key_id(OLD): 4}
        assert await sealing.seal_anew() == 1
        assert await sealing.seal_anew() == 0
        assert await passwords(catalog) == ["p0", "r"]


async def test_what_was_cut_off_goes_on(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = FixedKeys((NEW, OLD))
    async with open_catalog(database_url, OLD) as catalog:
        await fill(catalog, 120)
    async with open_catalog(database_url, both) as catalog:
        whole = catalog.sealing._seal_anew

        async def cut(items: Sequence[object]) -> int:
            done = await whole(items)  # type: ignore[arg-type]
            if done == 50:
                raise ConnectionError("killed")
            return done

        monkeypatch.setattr(catalog.sealing, "_seal_anew", cut)
        with pytest.raises(ConnectionError):
            await catalog.sealing.seal_anew()
        assert (await catalog.sealing.needed())[key_id(NEW)] == 50
    async with open_catalog(database_url, both) as catalog:
        assert len(await passwords(catalog)) == 121
        assert await catalog.sealing.seal_anew() == 73
        assert await catalog.sealing.needed() == {key_id(NEW): 123}


async def test_changes_at_the_same_time_are_not_lost(database_url: str) -> None:
    async with open_catalog(database_url, OLD) as catalog:
        await fill(catalog, 60)
    async with open_catalog(database_url, FixedKeys((NEW, OLD))) as catalog, open_catalog(database_url, OLD) as other:

        async def change() -> None:
            for each in range(60):
                writer = (catalog, other)[each % 2]
                await writer.systems.change(f"s{each:03}", {}, {"password": f"changed {each}"}, "default")
                await asyncio.sleep(0)

        await asyncio.gather(change(), catalog.sealing.seal_anew(), catalog.sealing.seal_anew())
        assert await passwords(catalog) == [*sorted(f"changed {each}" for each in range(60)), "r"]
        await catalog.sealing.seal_anew()
        assert await catalog.sealing.needed() == {key_id(NEW): 63}
        assert await passwords(catalog) == [*sorted(f"changed {each}" for each in range(60)), "r"]


async def test_what_needs_a_key_that_is_not_here_is_left_alone(database_url: str) -> None:
    async with open_catalog(database_url, OLD) as catalog:
        await fill(catalog, 1)
        foreign = SecretBox(OTHER).seal("s000", {"password": "foreign"})
        async with catalog.database.begin() as connection:
            await connection.execute(update(systems).values(secrets=foreign))
    async with open_catalog(database_url, FixedKeys((NEW, OLD))) as catalog:
        assert await catalog.sealing.seal_anew() == 3
        assert await catalog.sealing.needed() == {key_id(NEW): 3, key_id(OTHER): 1}
        with pytest.raises(SnapkeepError, match=key_id(OTHER)):
            await passwords(catalog)


async def test_who_has_which_key(database_url: str) -> None:
    async with open_catalog(database_url, OLD) as catalog, open_catalog(database_url, FixedKeys((NEW, OLD))) as other:
        await catalog.sealing.announce("serve")
        assert await catalog.sealing.without(key_id(OLD), ["serve", "w1"]) == ["w1"]
        await other.sealing.announce("w" * 63)
        assert await catalog.sealing.without(key_id(NEW), ["serve", "w" * 63]) == ["serve"]
        assert await catalog.sealing.next_key() is None
        await catalog.sealing.set_next(key_id(NEW))
        assert await other.sealing.next_key() == key_id(NEW)
        await catalog.sealing.set_next(None)
        assert await other.sealing.next_key() is None
