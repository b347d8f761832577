"""Options that every command has: which server, and in which form to answer."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from snapkeep.model.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from snapkeep.cli.rest import Rest

Output = Literal["table", "json"]
Several = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False, show_default=False)]
"""An option that may be given again and again, each time with one value."""


@Parameter(name="*", group="Common options")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Which server to ask, and how to print its answer."""

    output: Annotated[Output, Parameter(name=["--output", "-o"], env_var="SNAPKEEP_OUTPUT")] = "table"
    """table for people, json for programs."""

    data_dir: Annotated[Path | None, Parameter(name="--data-dir", env_var="SNAPKEEP_DATA_DIR")] = None
    """Data directory of the server on this machine: its address and token are read there."""

    url: Annotated[str | None, Parameter(name="--url", env_var="SNAPKEEP_URL")] = None
    """Address of the server, instead of the one in the data directory."""

    token_file: Annotated[Path | None, Parameter(name="--token-file", env_var="SNAPKEEP_TOKEN_FILE")] = None
    """File with the token, instead of a session or the one in the data directory; or set SNAPKEEP_TOKEN."""

    ca_file: Annotated[Path | None, Parameter(name="--ca-file", env_var="SNAPKEEP_CA_FILE")] = None
    """PEM file with the authority of the server that --url names, instead of the machine's own."""

    fingerprint: Annotated[str | None, Parameter(name="--fingerprint", env_var="SNAPKEEP_FINGERPRINT")] = None
    """SHA-256 of the certificate of the server that --url names (hex, colons allowed), instead of an authority."""

    client_cert: Annotated[Path | None, Parameter(name="--client-cert", env_var="SNAPKEEP_CLIENT_CERT")] = None
    """PEM file with your own certificate, for a server that demands one besides the token."""

    client_key: Annotated[Path | None, Parameter(name="--client-key", env_var="SNAPKEEP_CLIENT_KEY")] = None
    """PEM file with the key of that certificate; default: the same file."""

    approval: Annotated[str | None, Parameter(name="--approval", env_var="SNAPKEEP_APPROVAL")] = None
    """Id of the approval that lets this command do what nobody may do alone; see `snapkeep approval`."""

    @property
    def json(self) -> bool:
        """True when a program reads the answer."""
        return self.output == "json"

    def connect(self, token: str | None = None) -> Rest:
        """Return the client of the server; `token`: instead of the one that is found, none when empty.

        Raises Unavailable when no server is found, InvalidInput for no token, AuthenticationFailed for a session that
        is over.
        """
        from snapkeep.cli.rest import Rest
        from snapkeep.cli.trust import present, trust_here, trust_there
        from snapkeep.server.datadir import default_data_dir

        directory = self.data_dir or default_data_dir()
        if self.url is not None:
            url, trust = self.url, trust_there(self.url, self.ca_file, self.fingerprint)
        else:
            address = _address(directory)
            url, trust = str(address["url"]), trust_here(address)
        present(trust, self.client_cert, self.client_key)
        return Rest(url, self._token(directory, url) if token is None else token, trust, self.approval)

    def _token(self, directory: Path, url: str) -> str:
        from snapkeep.cli import credentials

        if token := os.environ.get("SNAPKEEP_TOKEN"):
            return token.strip()
        if not self.token_file and (session := credentials.find(url)):
            session.require_time(url)
            return session.token
        path = self.token_file or self._local_token(directory, url)
        try:
            return path.read_text().strip()
        except OSError as error:
            raise InvalidInput(
                f"The token cannot be read from {path}: {error.strerror}",
                next_step="Log in with `snapkeep login`, or give --token-file, or set SNAPKEEP_TOKEN; on the server's "
                "own machine, start `snapkeep serve` once.",
            ) from error

    def _local_token(self, directory: Path, url: str) -> Path:
        """Return the file of the local token, which is sent to no other server. Raises InvalidInput for another."""
        here: object = None
        with contextlib.suppress(Unavailable):
            here = _address(directory)["url"]
        if self.url is not None and url.rstrip("/") != here:
            raise InvalidInput(
                f"There is no token for {url}", next_step="Log in with `snapkeep login`, or give --token-file."
            )
        return directory / "token"


DEFAULT = Common()


def _address(directory: Path) -> dict[str, object]:
    from snapkeep.server.datadir import is_claimed

    try:
        if not is_claimed(directory):  # what is left there is of a server that died; its port may be a stranger's
            raise ValueError("no server holds it")
        return dict(json.loads((directory / "server.json").read_text()))
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"No server runs on the data directory {directory}",
            next_step="Start one with `snapkeep serve`, or name it with --url or --data-dir.",
        ) from error
