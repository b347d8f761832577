"""Keys of repositories that were opened before, in memory: it takes half a second to derive one from a password."""

from __future__ import annotations

import hashlib
import os

from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.crypto import Key
from snapkeep.repository.keys import find_key


class KeyRing:
    """Remembers by place and password, of which it keeps only a digest with a secret of this process."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._known: dict[bytes, tuple[str, Key]] = {}

    def key(self, backend: Backend, password: str) -> Key:
        """Return the keys of a repository. Raises what `find_key` raises.

        A password that was taken away opens nothing any more: its key file is gone.
        """
        text = f"{backend.location}\0{password}".encode()
        mark = hashlib.blake2b(text, key=self._secret, digest_size=32).digest()
        known = self._known.get(mark)
        if known is not None and any(name == known[0] for name, _ in backend.list(FileKind.KEY)):
            return known[1]
        found = self._known[mark] = find_key(backend, password)
        return found[1]
