"""One changed object as the vendor's ``files.v4.config.ChangedContent``.

Names are bytes; in JSON a byte that is not UTF-8 is a lone surrogate (``\\udcff`` for 0xff), as Python's
``surrogateescape`` writes it. Assumed: how the vendor shows such names is not documented.
"""

import datetime
import zlib
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii

from snapkeep.simulators.kit.volumes import Entry
from snapkeep.simulators.nutanix_files.model import FileServer, Share

_TAIL = b',"$objectType":"files.v4.config.ChangedContent","$reserved":{"$fv":"v4.r0"}}'


@dataclass(frozen=True, slots=True)
class PathForm:
    """How paths are written: relative, or below the FQDN of the file server or of the VM that owns the path."""

    share: str
    style: str
    host: str
    vms: tuple[str, ...]

    @classmethod
    def choose(cls, server: FileServer, share: Share, form: str, *, relative: bool, dfs: bool) -> "PathForm":
        """By the request and the setting ``cft_path_form``.

        Without DFS a standard share's paths name one VM; those of a distributed one name the VM that owns the
        top-level directory (assumed: chosen by the directory's name).
        """
        has_nfs = share.protocol == "NFS" or "NFS" in share.secondary
        style = form if form != "by_protocol" else "nfs" if has_nfs else "smb"
        vms: tuple[str, ...] = ()
        if not dfs:
            domain = server.fqdn.partition(".")[2]
            count = server.vms if share.type in {"DISTRIBUTED", "HOMES"} else 1
            vms = tuple(f"{server.name}-vm{number}.{domain}" for number in range(1, count + 1))
        return cls(share.name, "relative" if relative else style, server.fqdn, vms)

    def write(self, path: bytes) -> str:
        """The path as the vendor would write it."""
        text = path.decode("utf-8", "surrogateescape")
        if self.style == "relative":
            return text
        host = self.host
        if self.vms:
            host = self.vms[zlib.crc32(path.partition(b"/")[0]) % len(self.vms)]
        if self.style == "smb":
            return f"\\\\{host}\\{self.share}\\" + text.replace("/", "\\")
        return f"{host}:/{self.share}/{text}"


def encode(entry: Entry, form: PathForm, skew: float) -> bytes:
    """The JSON of one entry."""
    renamed = ""
    if entry.old_path is not None:
        renamed = f',"oldPath":{encode_basestring_ascii(form.write(entry.old_path))}'
    return (
        f'{{"path":{encode_basestring_ascii(form.write(entry.path))}{renamed}'
        f',"operationType":"{entry.operation}","objectType":"{entry.type}"'
        f',"sizeBytes":{entry.size},"inodeNumber":{entry.inode}'
        f',"creationTime":"{_time(entry.birth_time, skew)}","changeTime":"{_time(entry.change_time, skew)}"'
        f',"accessTime":"{_time(entry.access_time, skew)}"'
    ).encode() + _TAIL


def _time(nanoseconds: int, skew: float) -> str:
    moment = datetime.datetime.fromtimestamp(nanoseconds / 1e9 + skew, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
