"""E-mail over SMTP: one message to all recipients, in a thread, and never longer than its time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import smtplib
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from snapkeep import addresses
from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.catalog.report_schedules import Attachment
from snapkeep.model.notifications import one_line
from snapkeep.notifications.message import SEND_SECONDS, Outcome, Target
from snapkeep.notifications.trust import explained, trust

_STEP_SECONDS = 15.0
"""Longest wait for one answer."""
_LONGEST_SUBJECT = 150
_OK = range(200, 300)
_GO_ON = 334
_TEMPORARY = range(400, 500)


class Refused(Exception):
    """The server has refused a step."""

    def __init__(self, step: str, code: int, text: bytes) -> None:
        self.code = code
        super().__init__(f"{step}: {code} {text.decode('utf-8', 'replace')}")


def message_of(
    target: Target, delivery: DeliveryRecord, recipients: Sequence[str], file: Attachment | None = None
) -> EmailMessage:
    """Return the message, always the same. What is told cannot end a header: each text is one line."""
    data = delivery.data
    server = str(data["server"])
    message = EmailMessage(policy=SMTP)
    message["From"] = Address("Snapkeep", addr_spec=target.text("from"))
    message["To"] = [Address(addr_spec=one) for one in recipients]
    message["Subject"] = f"[Snapkeep {server}] {one_line(str(data['message']))}"[:_LONGEST_SUBJECT]
    message["Date"] = format_datetime(delivery.created_at)
    message["Message-ID"] = f"<{delivery.id}@{target.text('from').rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Snapkeep-Event"] = delivery.event
    message.set_content("\n".join(_lines(delivery)) + "\n")
    if file is not None:
        kind, _, form = file.media_type.partition("/")
        charset = {"charset": "utf-8"} if kind == "text" else {}
        message.add_attachment(file.content, maintype=kind, subtype=form, filename=file.name, params=charset)
        message.set_boundary(f"snapkeep-{delivery.id}")
    return message


def _lines(delivery: DeliveryRecord) -> list[str]:
    data = delivery.data
    lines = [str(data["message"]), ""]
    if data["next_step"]:
        lines += [f"Next: {data['next_step']}", ""]
    shown = {
        "Event": delivery.event,
        "Time": delivery.created_at.isoformat(timespec="seconds"),
        "System": data["system"],
        "Subject": data["subject"],
        "By": data["actor"],
        **data["details"],
        "Server": data["server"],
        "Delivery": delivery.id,
    }
    return lines + [f"{name}: {_text(value)}" for name, value in shown.items() if value not in ("", None, {}, [])]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


async def send(target: Target, delivery: DeliveryRecord, threads: Executor, file: Attachment | None = None) -> Outcome:
    """Send once, with a file if there is one. Raises InvalidInput for settings that cannot be used."""
    connection = _Connection(target, file)
    work = asyncio.get_running_loop().run_in_executor(threads, connection.send, delivery)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            return await asyncio.shield(work)
    except TimeoutError:
        return Outcome.retry(f"no end within {SEND_SECONDS:g} s")
    finally:
        connection.cut()
        work.add_done_callback(_looked_at)


def _looked_at(work: asyncio.Future[Outcome]) -> None:
    if not work.cancelled():
        work.exception()


class _Connection:
    """One conversation with a server; another thread may cut it off."""

    def __init__(self, target: Target, file: Attachment | None) -> None:
        self._target = target
        self._file = file
        self._socket: socket.socket | None = None
        self._is_cut = False

    def cut(self) -> None:
        """End it, wherever it is."""
        self._is_cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def send(self, delivery: DeliveryRecord) -> Outcome:
        """Send once, with all its steps."""
        recipients = delivery.recipients or tuple(self._target.settings["to"])
        try:
            server = self._open()
        except Refused as error:
            return Outcome.retry(str(error))  # of the login, too: the password may be corrected
        except (OSError, smtplib.SMTPException) as error:
            return Outcome.retry(explained(error))
        try:
            return self._hand_over(server, delivery, recipients)
        except smtplib.SMTPDataError as error:
            said = error.smtp_error
            return _refusal(Refused("message", error.smtp_code, said if isinstance(said, bytes) else said.encode()))
        except (OSError, smtplib.SMTPException) as error:
            return Outcome.retry(f"the connection broke: {type(error).__name__}")
        finally:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                server.quit()
            server.close()

    # -- the way in --------------------------------------------------------------------------------------------------
    def _open(self) -> smtplib.SMTP:
        """Connect, begin TLS and log in. Raises Refused, OSError, SMTPException, InvalidInput."""
        target = self._target
        host, port, tls = target.text("host"), int(target.settings["port"]), target.text("tls")
        context = None if tls == "none" else trust(target)
        connected = _connect(host, port)
        self._socket = connected
        if self._is_cut:
            connected.close()
            raise TimeoutError
        if tls == "tls" and context is not None:
            connected = self._socket = context.wrap_socket(connected, server_hostname=host)
        server = smtplib.SMTP(local_hostname=_own_name(connected))
        server.sock, server._host = connected, host  # type: ignore[attr-defined]
        try:
            _require("greeting", *server.getreply())
            server.ehlo_or_helo_if_needed()
            if tls == "starttls":
                _require("STARTTLS", *server.starttls(context=context))
                self._socket = server.sock
                server.ehlo_or_helo_if_needed()
            if username := target.text("username"):
                _login(server, username, target.text("password"))
        except BaseException:
            server.close()
            raise
        return server

    # -- the message -------------------------------------------------------------------------------------------------
    def _hand_over(self, server: smtplib.SMTP, delivery: DeliveryRecord, recipients: Sequence[str]) -> Outcome:
        code, text = server.mail(self._target.text("from"))
        if code not in _OK:
            return _refusal(Refused("sender", code, text))
        refused: dict[str, Refused] = {}
        for recipient in recipients:
            code, text = server.rcpt(recipient)
            if code not in _OK:
                refused[recipient] = Refused(recipient, code, text)
        later = tuple(one for one, error in refused.items() if error.code in _TEMPORARY)
        reasons = "; ".join(map(str, refused.values()))
        if len(refused) == len(recipients):
            return Outcome.retry(reasons, left=later) if later else Outcome.never(reasons)
        accepted = [one for one in recipients if one not in refused]
        code, text = server.data(message_of(self._target, delivery, recipients, self._file).as_bytes())
        if code not in _OK:
            return _refusal(Refused("message", code, text))
        if later:
            return Outcome.retry(f"sent to {', '.join(accepted)}, but {reasons}", left=later)
        answer = f"{code} {text.decode('utf-8', 'replace')}"
        return Outcome.sent(f"{answer}; but {reasons}" if refused else answer)


def _connect(host: str, port: int) -> socket.socket:
    """Open a connection to an allowed address. Raises InvalidInput, OSError."""
    addresses.require_host_now(host, port)
    end = time.monotonic() + _STEP_SECONDS
    connected = socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic()))
    try:
        addresses.require_allowed(host, str(connected.getpeername()[0]))  # it was looked up again
    except BaseException:
        connected.close()
        raise
    connected.settimeout(_STEP_SECONDS)
    return connected


def _own_name(connected: socket.socket) -> str:
    """Return how this machine calls itself: its name, if that is a whole one, else its address (RFC 5321, 4.1.3)."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(connected.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _login(server: smtplib.SMTP, username: str, password: str) -> None:
    """Log in by PLAIN or LOGIN, as most servers offer; smtplib's own takes no names and passwords but ASCII."""
    offered = server.esmtp_features.get("auth", "").upper().split()
    if "PLAIN" in offered:
        code, text = server.docmd("AUTH", "PLAIN " + _base64(f"\0{username}\0{password}"))
    elif "LOGIN" in offered:
        code, text = server.docmd("AUTH", "LOGIN")
        for answer in (username, password):
            if code != _GO_ON:
                break
            code, text = server.docmd(_base64(answer))
    else:
        raise Refused("login", 502, b"the server offers neither PLAIN nor LOGIN here; is TLS missing?")
    _require("login", code, text)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _require(step: str, code: int, text: bytes) -> None:
    if code not in _OK:
        raise Refused(step, code, text)


def _refusal(error: Refused) -> Outcome:
    return Outcome.retry(str(error)) if error.code in _TEMPORARY else Outcome.never(str(error))
