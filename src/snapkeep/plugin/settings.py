"""Settings of a system: typed, every field described, secrets marked by their type."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from snapkeep.model.errors import InvalidInput
from snapkeep.model.references import Reference
from snapkeep.model.snapshots import DEFAULT_PREFIX

_WORDS = {"extra_forbidden": "there is no such setting", "missing": "this setting is needed"}

_UNKNOWN = "unknown"
"""Stands for a secret that is elsewhere, as long as settings are only checked."""


class SystemSettings(BaseModel):
    """Base of the settings of every plug-in. A field of type `SecretStr` is stored encrypted, never returned."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=True)

    snapshot_prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,19}$")] = Field(
        default=DEFAULT_PREFIX,
        description="Owner mark: the names that Snapkeep gives to snapshots begin with it, then digits.",
    )

    _references: dict[str, Reference] = PrivateAttr(default_factory=dict)

    identity: ClassVar[frozenset[str]] = frozenset()
    """Settings that say which system it is: not to be changed while something of ours is on it."""
    access: ClassVar[frozenset[str]] = frozenset()
    """Settings by which access is given and taken: not to be changed while something is exported."""

    @field_validator("*", mode="after")
    @classmethod
    def _check_paths(cls, value: Any) -> Any:
        """A relative path would depend on the directory in which the server was started."""
        paths = value if isinstance(value, tuple) else (value,)
        if any(isinstance(path, Path) and not path.is_absolute() for path in paths):
            raise ValueError("must be an absolute path")
        return value

    @classmethod
    def secret_fields(cls) -> frozenset[str]:
        """Return the names of the fields that hold secrets."""
        return frozenset(name for name, field in cls.model_fields.items() if "SecretStr" in str(field.annotation))

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Check `data` (as people give it: plain values). Raises InvalidInput naming every wrong field.

        A secret may be a reference, `{"reference": "file:NAME"}`: then only `dump` gives it back. Who connects must
        have put the secret in its place before.
        """
        references: dict[str, Reference] = {}
        problems: list[str] = []
        for name in sorted(cls.secret_fields() & data.keys()):
            if isinstance(data[name], dict):
                try:
                    references[name] = Reference.of(data[name])
                except InvalidInput as error:
                    problems.append(f"{name}: {error.message}")
        try:
            settings = cls.model_validate({**data, **dict.fromkeys(references, _UNKNOWN)})
        except ValidationError as error:
            problems += [
                f"{'.'.join(map(str, item['loc'])) or 'together'}: {_WORDS.get(item['type'], item['msg'])}".replace(
                    "Value error, ", ""
                )
                for item in error.errors(include_url=False, include_input=False, include_context=False)
                if not (item["loc"] and any(each.startswith(f"{item['loc'][0]}: ") for each in problems))
            ]
            raise _invalid(problems) from None
        settings._references.update(references)
        return settings

    def dump(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return plain settings and secrets apart, both JSON-safe, without what was left at its default."""
        plain: dict[str, Any] = {}
        hidden: dict[str, str] = {}
        for name, value in self.model_dump(mode="python", exclude_unset=True).items():
            if name in self._references:
                plain[name] = self._references[name].json
            elif isinstance(value, SecretStr):
                hidden[name] = value.get_secret_value()
            elif value is not None:
                plain[name] = _plain(value)
        return plain, hidden


def _invalid(problems: list[str]) -> InvalidInput:
    return InvalidInput(
        "The settings are not valid: " + "; ".join(problems),
        next_step="Correct them; `snapkeep plugin show PLUGIN` lists all settings of a plug-in.",
        fields=problems,
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
"""A host name, an IPv4 or an IPv6 address: without scheme, port or path."""


class HttpsSettings(SystemSettings):
    """What every system needs that is reached by HTTPS."""

    host: HostName = Field(description="Name or address of the management interface; IPv6 without brackets.")
    port: int = Field(default=443, ge=1, le=65535, description="TCP port of the management interface.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file with the certificate authority to trust, instead of the machine's own.",
    )
    fingerprint: str | None = Field(
        default=None,
        description="SHA-256 of the one server certificate to trust (hex, colons allowed), instead of a CA.",
    )
    plain_http: bool = Field(
        default=False, description="Speak HTTP without TLS. Only to a loopback address: for simulators."
    )
    request_seconds: float = Field(default=30.0, gt=0, le=600, description="Longest time for one request, in seconds.")
    retry_seconds: float = Field(
        default=15.0,
        ge=0,
        le=3600,
        description="How long a failing request is repeated, in seconds; the last try may take request_seconds more.",
    )

    @model_validator(mode="after")
    def _check_trust(self) -> Self:
        if self.ca_file and self.fingerprint:
            raise ValueError("give ca_file or fingerprint, not both")
        if self.fingerprint and not re.fullmatch(r"[0-9a-f]{64}", self.pinned or ""):
            raise ValueError("fingerprint must be the SHA-256 of the certificate: 64 hexadecimal digits")
        if self.plain_http and self.host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("plain_http is for loopback addresses only")
        return self

    @property
    def pinned(self) -> str | None:
        """The fingerprint as 64 lower-case hexadecimal digits."""
        return self.fingerprint.replace(":", "").lower() if self.fingerprint else None

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a final slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.plain_http else 'https'}://{host}:{self.port}"
