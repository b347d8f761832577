"""Settings of a Nutanix file server, reached through its Prism Central."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, SecretStr, model_validator

from snapkeep.plugin.settings import HostName, HttpsSettings
from snapkeep.plugins.nutanix_files.assumptions import PathForm


class NutanixFilesSettings(HttpsSettings):
    """One file server of one Prism Central. Give username and password, or an API key."""

    identity: ClassVar[frozenset[str]] = frozenset({"file_server"})
    access: ClassVar[frozenset[str]] = frozenset({"partner_server"})

    host: HostName = Field(description="Name or address of Prism Central.")
    port: int = Field(default=9440, ge=1, le=65535, description="TCP port of Prism Central.")
    file_server: str = Field(min_length=1, description="Name of the file server (or its external id).")
    username: str | None = Field(default=None, min_length=1, description="Prism account.")
    password: SecretStr | None = Field(default=None, description="Password of that account.")
    api_key: SecretStr | None = Field(default=None, description="API key, instead of username and password.")
    partner_server: str = Field(
        default="snapkeep",
        min_length=1,
        max_length=64,
        description="Name of the partner server (type BACKUP) through which backup hosts get access.",
    )
    export_expiry_seconds: int = Field(
        default=86_400, ge=5, le=31 * 86_400, description="How long a granted access lasts unless it is renewed."
    )
    file_server_fqdn: str | None = Field(
        default=None, description="Name by which clients mount the file server; default: the file server's name."
    )
    change_paths: PathForm = Field(
        default="relative", description="Form of paths to ask Changed File Tracking for: relative or absolute."
    )
    local_exports: Path | None = Field(
        default=None, description="Directory of a simulator on this machine below which its exports appear."
    )

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key.get_secret_value()):
            raise ValueError("api_key has characters that no API key has")
        if self.username is not None and ":" in self.username:
            raise ValueError("username cannot have a colon")
        by_password = self.username is not None and self.password is not None
        if by_password == (self.api_key is not None) or (self.username is None) != (self.password is None):
            raise ValueError("give username and password, or api_key")
        return self
