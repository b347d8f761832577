"""Options that every command has: which server, and in which form to answer."""

from __future__ import annotations

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
    """File with the token, instead of the one in the data directory; or set SNAPKEEP_TOKEN."""

    @property
    def json(self) -> bool:
        """True when a program reads the answer."""
        return self.output == "json"

    def connect(self) -> Rest:
        """Return the client of the server. Raises Unavailable when none is found."""
        from snapkeep.cli.rest import Rest
        from snapkeep.server.datadir import default_data_dir

        directory = self.data_dir or default_data_dir()
        return Rest(self.url or _address(directory), self._token(directory))

    def _token(self, directory: Path) -> str:
        if token := os.environ.get("SNAPKEEP_TOKEN"):
            return token.strip()
        path = self.token_file or directory / "token"
        try:
            return path.read_text().strip()
        except OSError as error:
            raise InvalidInput(
                f"The token cannot be read from {path}: {error.strerror}",
                next_step="Start `snapkeep serve` once, or give --token-file, or set SNAPKEEP_TOKEN.",
            ) from error


DEFAULT = Common()


def _address(directory: Path) -> str:
    from snapkeep.server.datadir import is_claimed

    try:
        if not is_claimed(directory):  # what is left there is of a server that died; its port may be a stranger's
            raise ValueError("no server holds it")
        return str(json.loads((directory / "server.json").read_text())["url"])
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(
            f"No server runs on the data directory {directory}",
            next_step="Start one with `snapkeep serve`, or name it with --url or --data-dir.",
        ) from error
