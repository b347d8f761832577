"""What no public document says, each as one named fact: correct it here if a real system differs.

Everything else in this plug-in follows the vendor's SDK `ntnx-files-py-client` 4.0.1 or the API's guides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from snapkeep.model.errors import Busy, Conflict, Incomplete, LimitExceeded, SnapkeepError, Unsupported

SNAPSHOT_DIRECTORY = ".snapshot"
"""The hidden directory of an exported share in which its snapshots appear by name."""

SETTLE = timedelta(seconds=10)
"""How long after the end of its task a new entity may still answer 404."""

ABSENCE = timedelta(seconds=3)
"""How long something must answer 404 before it is held to be gone, where no task of ours says that it went."""

ERROR_CODES: Mapping[str, type[SnapkeepError]] = {
    "FILES-30409": Conflict,
    "FILES-30410": Busy,
    "FILES-40401": Unsupported,
    "FILES-40402": Unsupported,
    "FILES-40403": Unsupported,
    "FILES-40409": Conflict,
    "FILES-40410": Busy,
    "FILES-40422": LimitExceeded,
}
"""What a vendor code means where its HTTP status alone says too little. The FILES-nnnnn codes are not public."""

NEXT_PAGE_TOKEN_HEADER = "x-next-page-token"  # noqa: S105 - the name of a header
NEXT_PAGE_TOKEN_FIELD = "nextPageToken"  # noqa: S105 - the name of a field


def next_page_token(headers: Mapping[str, str], metadata: Mapping[str, Any]) -> str | None:
    """Return where changed content goes on: the response header, else `metadata.extraInfo`."""
    if token := headers.get(NEXT_PAGE_TOKEN_HEADER):
        return token
    extra = metadata.get("extraInfo")
    for item in extra if isinstance(extra, list) else ():
        if isinstance(item, dict) and item.get("name") == NEXT_PAGE_TOKEN_FIELD and item.get("value"):
            return str(item["value"])
    return None


def created_entity(entities: Iterable[Mapping[str, Any]], word: str) -> str | None:
    """Return the id of what a task made: the entity whose `rel` names `word`, else the only one."""
    candidates = [entity for entity in entities if entity.get("extId")]
    named = [entity for entity in candidates if word in str(entity.get("rel", "")).lower()]
    chosen = named or candidates
    return str(chosen[-1]["extId"]) if len(named) >= 1 or len(candidates) == 1 else None


def is_diff_capable(share: Mapping[str, Any]) -> bool:
    """Say whether a top-level share offers Changed File Tracking: v4 has no field for it."""
    return share.get("state", "ONLINE") == "ONLINE" and not share.get("isSnapshotPaused")


def decode_name(text: str) -> bytes:
    """Return the bytes of a file name or path: UTF-8, other bytes as lone surrogates (PEP 383)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:  # a surrogate that stands for no byte
        raise Incomplete(f"A path of the change list is not text that names bytes: {text!r}") from error


_NO_NAMES = frozenset({b"", b".", b".."})
PathForm = Literal["relative", "absolute"]


def relative_path(path: bytes, form: PathForm, share: str, host: str) -> bytes:
    r"""Return `path` relative to the share's root, in either documented form.

    `relative`: `dir/file`, a leading slash allowed. `absolute` ("FQDN path"): `host:/share/dir/file` for NFS,
    `\\host\share\dir\file` for SMB. With DFS the host is the file server, else one of its VMs, so only its first
    label is compared, up to a `-vm<n>` ending. Empty for
    the root itself. Raises Incomplete when the path lies on another share or host.
    """
    found = path if form == "relative" else _below_share(path, share.encode(), host.encode())
    found = found.strip(b"/")
    if found in {b"", b"."}:
        return b""
    if not _NO_NAMES.isdisjoint(found.split(b"/")):
        raise Incomplete(f"The change list has a path that is none: {path!r}")
    return found


_ABSOLUTE_NFS = re.compile(rb"([^/:]+):/([^/]+)(?:/(.*))?", re.DOTALL)
_ABSOLUTE_SMB = re.compile(rb"\\\\([^\\]+)\\([^\\]+)(?:\\(.*))?", re.DOTALL)


def _below_share(path: bytes, share: bytes, host: bytes) -> bytes:
    if match := _ABSOLUTE_SMB.fullmatch(path):
        found = (match[3] or b"").replace(b"\\", b"/")
    elif match := _ABSOLUTE_NFS.fullmatch(path):
        found = match[3] or b""
    else:
        raise Incomplete(f"The change list has a path without host and share: {path!r}")
    if _host_label(match[1]) != _host_label(host) or match[2] != share:
        raise Incomplete(
            f"The change list names {match[1] + b':/' + match[2]!r}, not {host + b':/' + share!r}",
            next_step="Set file_server_fqdn to the name that the file server uses for itself; then diff again.",
        )
    return found


def _host_label(host: bytes) -> bytes:
    return re.sub(rb"-vm[0-9]+$", b"", host.split(b".", 1)[0].lower())
