"""E-mail, over a real SMTP server: TLS, logins, recipients that are refused, and servers that hang."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.notifications.conftest import delivery
from tests.support.mails import Mails, hanging

from snapkeep.model.errors import InvalidInput
from snapkeep.model.notifications import Event, Notice
from snapkeep.notifications import mail
from snapkeep.notifications.message import Outcome, Result, Target

LOGIN = ("snapkeep", "pass äß word")


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def mails(tmp_path: Path, opened: ExitStack) -> Mails:
    return opened.enter_context(Mails(tmp_path, "starttls", LOGIN).running())


async def send(mails: Mails, threads: Executor, **more: Any) -> Outcome:
    return await mail.send(Target(mails.target(**more)), delivery(), threads)


@pytest.mark.parametrize("tls", ["starttls", "tls", "none"])
async def test_a_message_arrives(tmp_path: Path, opened: ExitStack, threads: Executor, tls: str) -> None:
    login = None if tls == "none" else LOGIN
    mails = opened.enter_context(Mails(tmp_path, tls, login).running())
    outcome = await send(mails, threads, to=["ops@example.com", "night@example.com"])
    assert outcome == Outcome(Result.SENT, "250 taken")
    (got,) = mails.got
    assert got.recipients == ["ops@example.com", "night@example.com"]
    assert got.sender == "snapkeep@example.com"
    assert got.is_encrypted is (tls != "none")
    assert got.login == (LOGIN[0] if login else None)
    message = got.message
    assert message["Subject"] == "[Snapkeep host1] backup files1/a failed: no space"
    assert message["From"] == "Snapkeep <snapkeep@example.com>"
    assert message["Message-ID"] == f"<{delivery().id}@example.com>", "the same whenever it is sent again"
    assert (message["Auto-Submitted"], message["X-Snapkeep-Event"]) == ("auto-generated", "operation.failed")
    assert "System: files1" in got.text
    assert f"Delivery: {delivery().id}" in got.text


async def test_a_wrong_password_is_tried_again_later(mails: Mails, threads: Executor) -> None:
    outcome = await send(mails, threads, password="wrong")
    assert outcome.result is Result.RETRY, "it may be corrected"
    assert outcome.answer.startswith("login: 535")
    assert "wrong" not in outcome.answer
    assert mails.got == []


async def test_who_is_not_known_gets_no_password(mails: Mails, threads: Executor) -> None:
    outcome = await send(mails, threads, ca_file=None)
    assert (outcome.result, "the certificate is not trusted" in outcome.answer) == (Result.RETRY, True)
    other = await send(mails, threads, host="127.0.0.2")
    assert "certificate is not trusted" in other.answer or "cannot be reached" in other.answer
    assert mails.got == []


async def test_without_starttls_nothing_is_sent(tmp_path: Path, opened: ExitStack, threads: Executor) -> None:
    mails = opened.enter_context(Mails(tmp_path, "none").running())
    outcome = await send(mails, threads, tls="starttls", username="u", password="p")
    assert outcome.result is Result.RETRY
    assert mails.got == []


async def test_recipients_who_are_refused(mails: Mails, threads: Executor) -> None:
    everybody = ["a@example.com", "b@example.com", "c@example.com"]
    mails.refuse = lambda who: "550 no such user" if who.startswith("b") else None
    outcome = await send(mails, threads, to=everybody)
    assert outcome == Outcome(Result.SENT, "250 taken; but b@example.com: 550 no such user")
    assert mails.got[0].recipients == ["a@example.com", "c@example.com"]

    mails.refuse = lambda who: "550 no such user"
    assert (await send(mails, threads, to=everybody)).result is Result.NEVER

    mails.refuse = lambda who: {"a": "450 greylisted", "b": "550 no such user"}.get(who[0])
    outcome = await send(mails, threads, to=everybody)
    assert (outcome.result, outcome.left) == (Result.RETRY, ("a@example.com",))
    assert mails.got[-1].recipients == ["c@example.com"]
    mails.refuse = lambda _: None
    again = await mail.send(Target(mails.target(to=everybody)), delivery(recipients=("a@example.com",)), threads)
    assert again.result is Result.SENT
    assert mails.got[-1].recipients == ["a@example.com"], "who has it gets it only once"


async def test_greylisting_and_full_disks_are_waited_for(mails: Mails, threads: Executor) -> None:
    mails.refuse = lambda _: "451 greylisted, come back later"
    outcome = await send(mails, threads)
    assert (outcome.result, "greylisted" in outcome.answer) == (Result.RETRY, True)
    mails.refuse = lambda _: None
    mails.answer = "452 no space"
    assert (await send(mails, threads)).result is Result.RETRY
    mails.answer = "554 this looks like spam"
    outcome = await send(mails, threads)
    assert outcome == Outcome(Result.NEVER, "message: 554 this looks like spam")


async def test_who_does_not_answer_is_waited_for_only_so_long(
    threads: Executor, monkeypatch: pytest.MonkeyPatch, mails: Mails
) -> None:
    monkeypatch.setattr(mail, "SEND_SECONDS", 1.0)
    begun = time.monotonic()
    with hanging() as port:
        outcome = await send(mails, threads, port=port)
    assert outcome == Outcome(Result.RETRY, "no end within 1 s")
    assert time.monotonic() - begun < 5
    threads.shutdown(wait=True)
    assert time.monotonic() - begun < 8, "its thread has ended, too"


async def test_who_answers_for_ever_is_left(threads: Executor, monkeypatch: pytest.MonkeyPatch, mails: Mails) -> None:
    monkeypatch.setattr(mail, "SEND_SECONDS", 1.0)
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connected, _ = listener.accept()
        with connected:
            try:
                while not ended.wait(0.05):
                    connected.sendall(b"220-welcome\r\n")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        outcome = await send(mails, threads, port=listener.getsockname()[1])
        assert outcome.result is Result.RETRY
        threads.shutdown(wait=True)
        ended.set()
        thread.join()


async def test_nobody_is_there_or_somebody_else(threads: Executor, mails: Mails, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = await send(mails, threads, port=port)
    assert outcome == Outcome(Result.RETRY, "it cannot be reached: Connection refused")
    assert (await send(mails, threads, tls="tls")).result is Result.RETRY, "TLS to a port without"


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0"])
async def test_addresses_that_nobody_may_have_us_speak_to(mails: Mails, threads: Executor, host: str) -> None:
    with pytest.raises(InvalidInput, match="does not connect to link-local"):
        await send(mails, threads, host=host)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.text(st.characters()), st.text())
def test_no_text_becomes_a_header(text: str, other: str) -> None:
    notice = Notice(event=Event.OPERATION_FAILED, message=f"x {text}\r\nBcc: evil@example.com\r\n\r\n{other}")
    target = Target({"from": "snapkeep@example.com", "to": ["ops@example.com"]})
    one = delivery(notice)
    made = mail.message_of(target, replace(one, data=notice.data(f"host\r\nX-Evil: {other}")), ["ops@example.com"])
    head = made.as_bytes().partition(b"\r\n\r\n")[0].decode("ascii")
    names = {line.partition(":")[0] for line in head.split("\r\n") if line[:1] not in {" ", "\t"}}
    assert names <= {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Snapkeep-Event", "MIME-Version",
        "Content-Type", "Content-Transfer-Encoding",
    }  # fmt: skip
    assert max(map(len, made.as_bytes().split(b"\r\n"))) <= 998
