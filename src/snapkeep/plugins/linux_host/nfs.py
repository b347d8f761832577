"""The host's own NFS server, by exportfs(8): to one address, read-only, until the server starts again.

exportfs notes exports in `/var/lib/nfs/etab`, which the server asks; each start of the server begins with an empty one.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import AsyncIterator
from contextlib import suppress

from snapkeep.model.errors import InvalidInput, PermissionDenied, SnapkeepError, Unavailable, Unsupported
from snapkeep.model.exports import AccessMode, Location, Protocol
from snapkeep.plugin.commands import Output
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.places import shown
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

MOST_PATH = 1024
"""Longest path that exportfs takes, in bytes."""

_ESCAPED = re.compile(rb"\\([0-7]{3})")
_CLIENT = re.compile(r"(?P<address>[^(]+)\((?P<options>[^)]*)\)")
_NUMBER = re.compile(r"errno (\d+)")


class Exportfs:
    """Opens paths on the host to addresses, and says which are open."""

    def __init__(self, host: Host, settings: LinuxHostSettings) -> None:
        self._host = host
        self._name = _bracketed(settings.nfs_address or settings.host or "localhost")
        self._port = settings.nfs_port

    async def open(self, doing: str, path: bytes, address: str, mode: AccessMode, fsid: str) -> None:
        """Open a path; what is open already stays so. `fsid`: a UUID that no other path is exported with.

        Raises Unsupported for what cannot be opened so, and InvalidInput for a host that is no IP address.
        """
        _require_exportable(path, address, mode)
        options = f"ro,no_subtree_check,no_root_squash,sec=sys,fsid={fsid}"
        try:
            await self._host.do(doing, "exportfs", "-o", options, _client(path, address))
        except SnapkeepError:
            with suppress(SnapkeepError):  # it notes an export before it looks whether that is good
                await self._host.run("exportfs", "-u", _client(path, address))
            raise

    async def close(self, doing: str, location: Location, address: str) -> None:
        """Close what is shown as this location; what is not open stays so."""
        path = b"/" + location.source.partition(":/")[2].encode("utf-8", "surrogateescape")
        done = await self._host.run("exportfs", "-u", _client(path, address))
        if done.code and (path, address) in [found async for found in self.exported()]:
            self._host.require(done, doing)

    async def exported(self) -> AsyncIterator[tuple[bytes, str]]:
        """Yield path and address of all that is open."""
        listed = await self._host.run("exportfs", "-s")
        _require_read(listed)
        for line in self._host.require(listed, "Listing exports").splitlines():
            path, _, client = line.partition(b"  ")
            match = _CLIENT.fullmatch(client.strip().decode("utf-8", "replace"))
            if match:
                yield _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), path), match["address"]

    def location(self, path: bytes) -> Location:
        """Return how a backup host mounts a path that is open."""
        source = f"{self._name}:{path.decode('utf-8', 'surrogateescape')}"
        return Location(protocol=Protocol.NFS, path="", source=source, options={"ro": "", "port": str(self._port)})


def _require_exportable(path: bytes, address: str, mode: AccessMode) -> None:
    if mode is AccessMode.READ_WRITE:
        raise Unsupported(
            "By NFS a snapshot of a Linux host is read, not written",
            next_step="Export it read-only; restore with `snapkeep snapshot restore`, or by a worker on that host.",
        )
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidInput(
            f"exportfs would open it to whatever {address!r} stands for now, and show that under another name",
            next_step="Give the IP address from which the backup host reaches this host (--address).",
        ) from None
    reason = "is no UTF-8" if shown(path).encode() != path else ""
    if len(path) > MOST_PATH:
        reason = f"is longer than the {MOST_PATH} bytes that exportfs takes"
    if _ESCAPED.search(path):
        reason = "has a backslash before three digits, which exportfs takes for one byte"
    if reason:
        raise Unsupported(
            f"{shown(path)} cannot be exported by NFS: the path {reason}",
            next_step="Mount the file system, or that subvolume, at another path.",
        )


def _require_read(listed: Output) -> None:
    """Raise what hindered exportfs: where it may not lock its table it lists nothing, and ends well."""
    said = [line for line in listed.err.decode("utf-8", "replace").splitlines() if line.startswith("exportfs:")]
    if not said:
        return
    found = _NUMBER.search(said[0])
    message = f"exportfs cannot read what is exported on {listed.host}"
    if found and int(found[1]) in {errno.EACCES, errno.EPERM}:
        raise PermissionDenied(
            message,
            needed="exportfs -s",
            next_step="Let the user be root, or set `sudo`; `snapkeep system check` shows what is needed.",
            vendor_message=said[0],
        )
    raise Unavailable(message, next_step="See whether /var/lib/nfs can be written to.", vendor_message=said[0])


def _client(path: bytes, address: str) -> bytes:
    return _bracketed(address).encode() + b":" + path


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
