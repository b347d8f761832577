"""What tests of backends need."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from tests.support.sshd import SshServer

from snapkeep.model.errors import SnapkeepError
from snapkeep.repository.backends.sftp import SftpBackend

BIG = random.Random(1).randbytes(17 << 20)


def name_of(data: bytes) -> str:
    """Return the name of a file with this content."""
    return hashlib.sha256(data).hexdigest()


def open_sftp(server: SshServer, path: Path, **options: Any) -> SftpBackend:
    """Open a directory on the server; `options` as of `SftpBackend`."""
    given = {"port": server.port, "private_key": server.private_key, "host_key": server.host_key, **options}
    return SftpBackend("127.0.0.1", str(path), user=server.user, **given)


def all_of(error: SnapkeepError) -> str:
    """Return all that a log may show of an error."""
    return f"{error!r} {error} {error.to_dict()} {error.__cause__!r} {vars(error.__cause__) if error.__cause__ else ''}"
