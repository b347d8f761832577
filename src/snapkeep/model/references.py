"""Where a secret is, instead of the secret: a file, an environment variable, or a field of a secret in Vault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from snapkeep.model.errors import InvalidInput

_KEY = "reference"
_FORMS = {
    "file": r"[^\0]{1,4096}",
    "env": r"SNAPKEEP_SECRET_[A-Z0-9_]{1,200}",
    "vault": r"(?P<mount>[A-Za-z0-9._-]+)/(?P<path>[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)#(?P<field>[^\0]{1,200})",
}
_OURS = re.compile(r"SNAPKEEP_SECRET_(KEY(_FILE|_COMMAND)?|DIRECTORY)")
"""Variables with this beginning that are settings of ours."""


class Place(StrEnum):
    """The kinds of places."""

    FILE = "file"
    ENV = "env"
    VAULT = "vault"


@dataclass(frozen=True, slots=True)
class Reference:
    """`file:NAME`, `env:SNAPKEEP_SECRET_NAME` or `vault:MOUNT/PATH#FIELD`."""

    place: Place
    value: str

    def __str__(self) -> str:
        return f"{self.place}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form that people write. Raises InvalidInput."""
        kind, _, value = text.partition(":")
        form = _FORMS.get(kind)
        steps = value.partition("#")[0].split("/")
        unsafe = _OURS.fullmatch(value) if kind == "env" else kind == "vault" and {".", ".."} & set(steps)
        if form is None or not re.fullmatch(form, value) or unsafe:
            raise InvalidInput(
                f"{text!r:.200} is no reference to a secret",
                next_step="Write file:NAME, env:SNAPKEEP_SECRET_NAME or vault:MOUNT/PATH#FIELD.",
            )
        return cls(Place(kind), value)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """Read the form in JSON: `{"reference": "file:NAME"}`. Raises InvalidInput."""
        text = value.get(_KEY)
        if set(value) != {_KEY} or not isinstance(text, str):
            raise InvalidInput('A secret is a text, or {"reference": "file:NAME"}')
        return cls.parse(text)

    @property
    def json(self) -> dict[str, str]:
        """The form in JSON."""
        return {_KEY: str(self)}

    @property
    def in_vault(self) -> tuple[str, str, str]:
        """Mount, path and field."""
        found = re.fullmatch(_FORMS["vault"], self.value)
        if found is None:
            raise ValueError(self.value)
        return found["mount"], found["path"], found["field"]
