"""Exports on this machine of what has no place of its own for them: links in a directory of the host.

`<directory>/<kind>/<mode>/<address>/<id of the asset>/@<id of the snapshot>`: the path tells all that is to be known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from snapkeep.model.exports import AccessMode
from snapkeep.plugins.linux_host.file_systems.kind import Link
from snapkeep.plugins.linux_host.host import Host


class Links:
    """The links of one kind of file system."""

    def __init__(self, host: Host, directory: bytes, kind: str) -> None:
        self._host = host
        self._directory = directory.rstrip(b"/") + b"/" + kind.encode()

    def path(self, asset_id: str, snapshot_id: str, address: str, mode: AccessMode) -> bytes:
        """Return where one is to be."""
        return b"/".join([self._directory, *(part.encode() for part in (mode, address, asset_id, f"@{snapshot_id}"))])

    async def every(self) -> list[Link]:
        """Return those that there are."""
        done = await self._host.run(
            *("find", self._directory, "-mindepth", "4", "-type", "l", "-name", "@*", "-printf", "%P\\0")
        )
        return list(_read(self._directory, done.out))


def _read(directory: bytes, listed: bytes) -> Iterator[Link]:
    for item in listed.split(b"\0")[:-1]:
        mode, address, *asset, last = item.decode("utf-8", "surrogateescape").split("/")
        with suppress(ValueError):
            yield Link(directory + b"/" + item, "/".join(asset), last[1:], address, AccessMode(mode), None)
