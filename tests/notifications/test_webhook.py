"""Webhooks as they are on the wire: signed so that the published library agrees, over TLS that is verified."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from tests.notifications.conftest import delivery
from tests.support.hooks import Answer, Hooks

from snapkeep.model.errors import InvalidInput
from snapkeep.model.notifications import Event, Notice
from snapkeep.notifications import webhook
from snapkeep.notifications.message import Outcome, Result, Target, payload_of

SECRET = webhook.new_secret()


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[Hooks]:
    with Hooks(tmp_path / "tls").running() as running:
        yield running


def target(hooks: Hooks, **more: Any) -> Target:
    return Target({"url": hooks.url, "secret": SECRET, "ca_file": hooks.ca_file, **more})


async def send(hooks: Hooks, **more: Any) -> Outcome:
    return await webhook.send(target(hooks, **more), delivery(), datetime.now(UTC))


async def test_what_is_sent_is_signed_as_the_published_library_says(hooks: Hooks) -> None:
    assert await send(hooks) == Outcome(Result.SENT, "204")
    (got,) = hooks.got
    got.verify(SECRET)
    assert got.json == json.loads(json.dumps(payload_of(delivery())))
    assert (got.json["type"], got.json["timestamp"]) == ("operation.failed", "2026-11-28T12:00:00Z")
    assert got.id == delivery().id
    for wrong in (webhook.new_secret(), SECRET[:-6] + "AAAAA="):
        with pytest.raises(WebhookVerificationError):
            got.verify(wrong)
    got.body += b" "
    with pytest.raises(WebhookVerificationError):
        got.verify(SECRET)


@given(st.binary(min_size=24, max_size=64), st.text(), st.binary())
def test_every_signature_is_that_of_the_library(key: bytes, message_id: str, body: bytes) -> None:
    secret = webhook.PREFIX + base64.b64encode(key).decode()
    assert webhook.key_of(secret) == key
    text = body.decode("utf-8", "replace")
    if not message_id.isprintable():
        message_id = "id"
    now = datetime.now(UTC)
    ours = webhook.signature(key, message_id, int(now.timestamp()), text.encode())
    assert ours == Webhook(secret).sign(message_id, now, text)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode(), "x" * 200]
)
def test_what_is_no_secret(secret: str) -> None:
    with pytest.raises(InvalidInput):
        webhook.key_of(secret)


@pytest.mark.parametrize(
    ("answer", "result", "after"),
    [
        (Answer(200, b"thanks"), Result.SENT, None),
        (Answer(400, b"no"), Result.RETRY, None),
        (Answer(401), Result.RETRY, None),
        (Answer(410, b"gone"), Result.GONE, None),
        (Answer(500), Result.RETRY, None),
        (Answer(429, headers={"Retry-After": "7"}), Result.RETRY, 7.0),
        (Answer(503, headers={"Retry-After": "999999999"}), Result.RETRY, 86400.0),
        (Answer(429, headers={"Retry-After": "soon"}), Result.RETRY, None),
        (Answer(302, headers={"Location": "http://169.254.169.254/"}), Result.RETRY, None),
    ],
)
async def test_answers(hooks: Hooks, answer: Answer, result: Result, after: float | None) -> None:
    hooks.answer = lambda _: answer
    outcome = await send(hooks)
    assert (outcome.result, outcome.after) == (result, after)
    assert outcome.answer.startswith(str(answer.status))
    assert len(hooks.got) == 1, "a redirect is not followed"


async def test_a_time_to_come_back_at(hooks: Hooks) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    hooks.answer = lambda _: Answer(503, headers={"Retry-After": then})
    after = (await send(hooks)).after
    assert after is not None
    assert 90 < after <= 100


async def test_who_is_not_known_gets_nothing(hooks: Hooks) -> None:
    outcome = await send(hooks, ca_file=None)
    assert outcome.result is Result.RETRY
    assert "the certificate is not trusted" in outcome.answer
    assert hooks.got == []
    other = await send(hooks, url=hooks.url.replace("127.0.0.1", "localhost"))
    assert "the certificate is not trusted" in other.answer, "it has another name"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0", "100.100.100.200"]
)
async def test_addresses_that_nobody_may_have_us_speak_to(hooks: Hooks, host: str) -> None:
    with pytest.raises(InvalidInput, match="does not connect to link-local"):
        await send(hooks, url=f"https://{host}/x")


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://example.com/", "http://example.com/", "https://", "https://u:p@example.com/", "https://e.com:99999/",
     "file:///etc/passwd", "https://exa mple.com/", "http://127.0.0.1.example.com/", "//example.com"],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInput) as told:
        webhook.require_url(url)
    assert "example.com" not in told.value.message, "there may be a secret in it"


def test_an_address_is_shown_without_its_secrets() -> None:
    assert (
        webhook.shown("https://hooks.example.com:8443/services/T0/SECRET?key=SECRET")
        == "https://hooks.example.com:8443/…"
    )
    assert webhook.shown("https://example.com/?key=SECRET") == "https://example.com/…"
    assert webhook.shown("https://example.com") == "https://example.com"
    assert webhook.shown("https://example.com/") == "https://example.com"


async def test_a_long_answer_is_read_in_part(hooks: Hooks) -> None:
    hooks.answer = lambda _: Answer(500, b"x" * 10_000_000)
    assert len((await send(hooks)).answer) < 300


async def test_an_answer_that_tries_tricks_is_one_line(hooks: Hooks) -> None:
    hooks.answer = lambda _: Answer(500, b"bad\r\n\x1b[31m\0")
    assert (await send(hooks)).answer == r"500 bad\r\n\x1b[31m\x00"


async def test_who_does_not_answer_is_waited_for_only_so_long(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "SEND_SECONDS", 0.5)
    hold = threading.Event()
    hooks.answer = lambda _: Answer(hold=hold)
    begun = time.monotonic()
    assert (await send(hooks)).answer == "no answer within 0.5 s"
    assert time.monotonic() - begun < 5
    hold.set()


@pytest.fixture
async def trickling() -> AsyncIterator[int]:
    """A server that answers a byte now and then, for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-A: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.1)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.3)


async def test_who_answers_for_ever_is_left(trickling: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "SEND_SECONDS", 1.0)
    there = Target({"url": f"http://127.0.0.1:{trickling}/", "secret": SECRET})
    assert (await webhook.send(there, delivery(), datetime.now(UTC))).result is Result.RETRY


async def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    there = Target({"url": f"http://127.0.0.1:{port}/SECRET", "secret": SECRET})
    outcome = await webhook.send(there, delivery(), datetime.now(UTC))
    assert outcome.result is Result.RETRY
    assert "cannot be reached" in outcome.answer
    assert "SECRET" not in outcome.answer
    assert "SECRET" not in repr(there)


@given(st.text(st.characters()))
def test_whatever_is_told_is_json_on_one_line(text: str) -> None:
    notice = Notice(event=Event.OPERATION_FAILED, message=text, subject=text, details={text: [text, {"a": text}]})
    data = notice.data("host")
    json.dumps(data).encode("ascii")
    assert data["message"].isprintable()
    json.loads(json.dumps(data))["message"].encode()
