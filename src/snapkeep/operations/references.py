"""From references to secrets, on the machine that needs them and at the moment at which it does."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapkeep.model.errors import InvalidInput
from snapkeep.model.references import Place, Reference
from snapkeep.operations.vault import VaultSettings, read_secrets

MOST_BYTES = 64 << 10
_PEM = "-----BEGIN "
"""How a private key begins, which is many lines (RFC 7468)."""


@dataclass(frozen=True, slots=True)
class References:
    """What references may name here: files below one directory, variables of one kind, and what Vault allows."""

    directory: Path | None = None
    vault: VaultSettings | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    async def resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with secrets in the place of references (`{"reference": ...}`).

        Raises InvalidInput for one that names nothing here, and what Vault raises.
        """
        found = {name: Reference.of(value) for name, value in values.items() if isinstance(value, dict)}
        wanted = {item.in_vault[:2] for item in found.values() if item.place is Place.VAULT}
        stored = await self._from_vault(wanted) if wanted else {}
        secrets: dict[str, str] = {}
        for name, reference in found.items():
            if reference.place is Place.FILE:
                secrets[name] = await asyncio.to_thread(self._from_file, reference)
            elif reference.place is Place.ENV:
                secrets[name] = self._from_environment(reference)
            else:
                mount, path, key = reference.in_vault
                secrets[name] = _field(stored[mount, path], key, reference)
        return {**values, **secrets}

    def _from_file(self, reference: Reference) -> str:
        if self.directory is None:
            raise _refused(reference, "there is no directory of secrets", "Set SNAPKEEP_SECRET_DIRECTORY.")
        allowed = f"Put the file below {self.directory}, on each machine that needs it, or correct the reference."
        try:
            directory = self.directory.resolve(strict=True)
            path = (directory / reference.value).resolve(strict=True)
            if not path.is_relative_to(directory):
                raise _refused(reference, "it lies elsewhere", allowed)
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _refused(reference, "it is no file", allowed)
                text = file.read(MOST_BYTES).decode()
        except (OSError, RuntimeError) as error:  # pathlib calls a loop of links a RuntimeError, before Python 3.13
            raise _refused(reference, getattr(error, "strerror", None) or "a loop of links", allowed) from None
        except ValueError:
            raise _refused(reference, "it is no text", allowed) from None
        secret = text if text.startswith(_PEM) else text.partition("\n")[0].rstrip("\r")
        if not secret:
            raise _refused(reference, "it is empty", allowed)
        return secret

    def _from_environment(self, reference: Reference) -> str:
        if secret := self.environment.get(reference.value):
            return secret
        raise _refused(
            reference,
            "there is no such variable",
            f"Set {reference.value} for the server and the workers that serve the system, and start them again.",
        )

    async def _from_vault(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
        if self.vault is None:
            raise InvalidInput(
                "A secret is to be read from Vault, but this process does not know where that is",
                next_step="Set SNAPKEEP_VAULT_ADDRESS and a login for the server and the workers.",
            )
        return await read_secrets(self.vault, wanted)


def _field(stored: Mapping[str, Any], key: str, reference: Reference) -> str:
    secret = stored.get(key)
    if isinstance(secret, str) and secret:
        return secret
    raise _refused(reference, "the secret has no such field that is a text", "Correct the name behind the #.")


def _refused(reference: Reference, why: str, next_step: str) -> InvalidInput:
    return InvalidInput(f"The secret {str(reference)!r} cannot be had: {why}", next_step=next_step)
