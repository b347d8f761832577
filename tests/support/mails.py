"""A real SMTP server (aiosmtpd): with TLS of an authority of its own, logins, and answers that the test wants."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from snapkeep.simulators.kit.certificates import certificates

Json = dict[str, Any]


@dataclass
class Mail:
    """A message that was taken."""

    sender: str
    recipients: list[str]
    content: bytes
    is_encrypted: bool
    login: str | None

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.content, policy=email.policy.default)

    @property
    def text(self) -> str:
        return str(self.message.get_content())


class Mails:
    """The server."""

    def __init__(self, directory: Path, tls: str = "starttls", login: tuple[str, str] | None = None) -> None:
        self._files = certificates(directory, ["127.0.0.1", "localhost"])
        self._tls = tls
        self._login = login
        self.got: list[Mail] = []
        self.tries: list[str] = []
        """Recipients that were asked for."""
        self.refuse: Callable[[str], str | None] = lambda _: None
        """What a recipient is answered; None: it is taken."""
        self.answer = "250 taken"
        """What a message is answered."""
        self.port = 0

    def target(self, **more: Any) -> Json:
        """Return a target of a channel that leads here."""
        target: Json = {"kind": "email", "host": "127.0.0.1", "port": self.port, "tls": self._tls}
        target |= {"from": "snapkeep@example.com", "to": ["ops@example.com"]}
        if self._tls != "none":
            target["ca_file"] = str(self._files.ca)
        if self._login:
            target |= {"username": self._login[0], "password": self._login[1]}
        return target | more

    @contextmanager
    def running(self) -> Iterator[Mails]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.certificate, self._files.key)
        options: Json = {"tls_context": context, "require_starttls": True} if self._tls == "starttls" else {}
        if self._login:
            options |= {"auth_required": True, "auth_require_tls": self._tls == "starttls"}
            options |= {"authenticator": self._authenticate}

        ready = threading.Event()
        ends: list[Callable[[], Any]] = []

        async def serve() -> None:
            loop, end = asyncio.get_running_loop(), asyncio.Event()
            tls = context if self._tls == "tls" else None
            server = await loop.create_server(lambda: self._smtp(loop, options), "127.0.0.1", 0, ssl=tls)
            self.port = server.sockets[0].getsockname()[1]
            ends.append(lambda: loop.call_soon_threadsafe(end.set))
            ready.set()
            await end.wait()
            server.close()
            await asyncio.sleep(0.1)

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            ends[0]()
            thread.join()

    def _smtp(self, loop: asyncio.AbstractEventLoop, options: Json) -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a login without STARTTLS, which TLS from the beginning does not need
            return SMTP(self, loop=loop, **options)

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = self._login == (data.login.decode(), data.password.decode())
        return (
            AuthResult(success=right, auth_data=data.login.decode())
            if right
            else AuthResult(success=False, handled=False)
        )

    # -- called by aiosmtpd --------------------------------------------------------------------------------------------
    async def handle_RCPT(self, _server: Any, _session: Session, envelope: Envelope, address: str, _o: Any) -> str:  # noqa: N802
        self.tries.append(address)
        if refused := self.refuse(address):
            return refused
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answer.startswith("2"):
            assert isinstance(envelope.content, bytes)
            encrypted = session.ssl is not None or self._tls == "tls"
            login = session.auth_data if session.authenticated else None
            self.got.append(Mail(str(envelope.mail_from), envelope.rcpt_tos, envelope.content, encrypted, login))
        return self.answer


@contextmanager
def hanging() -> Iterator[int]:
    """Yield the port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
