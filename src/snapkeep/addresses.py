"""Addresses that people may not have us speak to: those that only a machine itself, or its cloud, should reach.

Who may add systems could otherwise have the server ask the metadata service of its cloud, which gives credentials to
whoever asks from that machine (server-side request forgery). What counts is the address that a name leads to at the
moment of the connection, not what was looked up before. Two connections are made by others, and judged by a look-up
right before: those of boto3 to S3, and those of a jump host, which looks names up by itself, and where its own policy
decides what may be reached.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from snapkeep.model.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "::/128",  # unspecified: this machine by another name
        "169.254.0.0/16", "fe80::/10",  # link-local, and most metadata services
        "224.0.0.0/4", "ff00::/8", "255.255.255.255/32",  # multicast and broadcast
        "fd00:ec2::/64", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32",  # Amazon, Azure, Alibaba, Oracle
    )
)  # fmt: skip
"""RFC 3927, 4291, 5771, 6890; the last ones are services that clouds offer to their machines."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_allowed: tuple[Network, ...] = ()


def allow(networks: Iterable[Network]) -> None:
    """Let this process speak to these networks all the same."""
    global _allowed  # noqa: PLW0603 - one policy for the process, set at its start
    _allowed = tuple(networks)


def require_allowed(host: str, address: str) -> None:
    """Raise InvalidInput for an address to which `host` leads, and that is refused. Names are none: they pass."""
    try:
        found = _plain(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        return
    if any(found in network for network in REFUSED) and not any(found in network for network in _allowed):
        raise InvalidInput(
            f"{host} leads to {found}: Snapkeep does not connect to link-local, multicast and metadata addresses",
            next_step="Correct the address. If it is right, allow it with SNAPKEEP_ALLOWED_ADDRESSES.",
        )


async def require_host(host: str, port: int) -> None:
    """Raise InvalidInput when one of the addresses of a host is refused; one that has no address passes."""
    try:
        found = await _resolve(host, port)
    except (OSError, UnicodeError):
        return
    for *_, address in found:
        require_allowed(host, str(address[0]))


def require_host_now(host: str, port: int) -> None:
    """Do the same where there is no event loop."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return
    for *_, address in found:
        require_allowed(host, str(address[0]))


async def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Open a TCP connection. Raises InvalidInput, and OSError or TimeoutError as the socket does."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        found = await _resolve(host, port)
        for *_, address in found:
            require_allowed(host, str(address[0]))
        failure: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in found:
            opened = socket.socket(family, kind, protocol)
            opened.setblocking(False)
            try:
                await loop.sock_connect(opened, address)
            except OSError as error:
                opened.close()
                failure = error
            except BaseException:
                opened.close()
                raise
            else:
                return opened
        raise failure


async def _resolve(host: str, port: int) -> Sequence[Any]:
    """Look a host up. What is an address already needs no thread, of which a loop that is closing gives none."""
    numeric = socket.AI_NUMERICHOST
    try:
        return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=numeric)
    except (OSError, UnicodeError):
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address
