"""What every connection by SSH has in common: whom we trust, and how we log in.

The options are those of `asyncssh.connect` (https://asyncssh.readthedocs.io/en/stable/api.html#sshclientconnectionoptions).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snapkeep import addresses
from snapkeep.model.errors import InvalidInput

try:
    import asyncssh
except ImportError as missing:
    raise InvalidInput(
        "What is reached by SSH needs a library that is not installed", next_step="Install snapkeep[ssh]."
    ) from missing


CONNECT_SECONDS = 15.0
"""Longest time until a server has taken the connection."""


def connection_options(seconds: float) -> dict[str, Any]:
    """Return what holds for every connection; nothing is to take longer than `seconds`."""
    return {
        "config": None,  # a StrictHostKeyChecking of the user's own must not reach us
        "encryption_algs": "^aes128-gcm@openssh.com,aes256-gcm@openssh.com",  # quicker than what asyncssh prefers
        "connect_timeout": min(seconds, CONNECT_SECONDS),
        "login_timeout": min(seconds, 30),
        "keepalive_interval": 15,
        "keepalive_count_max": 4,
    }


def trust(host_key: str | None, known_hosts: str | None) -> dict[str, Any]:
    """Return whom to trust: one key, or those of a file; without both the user's own. Raises InvalidInput."""
    if host_key:
        try:
            return {"known_hosts": ([asyncssh.import_public_key(host_key)], [], [])}
        except asyncssh.KeyImportError:
            raise InvalidInput("host_key is not the public key of a server, such as ssh-ed25519 AAAA...") from None
    if known_hosts:
        if not Path(known_hosts).is_file():
            raise InvalidInput(f"There is no file {known_hosts} of known hosts")
        return {"known_hosts": known_hosts}
    return {}  # ~/.ssh/known_hosts; without that file no server is trusted


def login(private_key: str | None, passphrase: str | None, password: str | None) -> dict[str, Any]:
    """Return how to log in; with nothing given, by what the user's agent and own keys offer. Raises InvalidInput."""
    if private_key:
        try:
            key = asyncssh.import_private_key(private_key, passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            raise InvalidInput("private_key cannot be read, or its passphrase is wrong or missing") from None
        return {"client_keys": [key], "agent_path": None, "password": password}
    if password:
        return {"client_keys": None, "agent_path": None, "password": password}
    return {}


async def connect(host: str, port: int, seconds: float, **options: Any) -> asyncssh.SSHClientConnection:
    """Connect to a host whose address is allowed (`snapkeep.addresses`), within `seconds` by TCP.

    Raises InvalidInput, asyncssh.Error, OSError, TimeoutError. Whoever gives up leaves no socket behind.
    """
    opened = await addresses.connect(host, port, seconds)
    taken = False

    class Client(asyncssh.SSHClient):
        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            nonlocal taken
            taken = True

    try:
        return await asyncssh.connect(host, port, sock=opened, client_factory=Client, **options)
    finally:
        if not taken:  # asyncssh closes only what it has begun to use, and reads keys and files before that
            opened.close()
