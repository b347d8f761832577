"""The key files of a repository."""

from __future__ import annotations

import hashlib
from itertools import islice

from snapkeep.model.errors import AuthenticationFailed, Damaged, NotFound
from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.crypto import Key, open_key_file

_MOST_KEYS = 20


def find_key(backend: Backend, password: str) -> tuple[str, Key]:
    """Return the keys of a repository, and the name of the file that they are in: each password has one.

    Raises AuthenticationFailed, Damaged.
    """
    damage: Damaged | None = None
    names = [name for name, _ in islice(backend.list(FileKind.KEY), _MOST_KEYS)]
    if not names:
        raise Damaged(f"The repository {backend.location} has no key file: nothing in it can be read")
    for name in names:
        try:
            content = backend.load(FileKind.KEY, name)
            if hashlib.sha256(content).hexdigest() != name:
                raise Damaged(f"Key file {name} does not match its checksum")
            if key := open_key_file(content, password):
                return name, key
        except NotFound:
            continue
        except Damaged as error:
            damage = error
    if damage:
        raise damage
    raise AuthenticationFailed(
        f"The password is not one of the repository {backend.location}", next_step="Check the repository's password."
    )
