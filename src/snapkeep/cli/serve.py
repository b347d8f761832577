"""`snapkeep serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def serve(
    *,
    data_dir: Annotated[Path | None, Parameter(env_var="SNAPKEEP_DATA_DIR")] = None,
    host: Annotated[str | None, Parameter(env_var="SNAPKEEP_HOST")] = None,
    port: Annotated[int | None, Parameter(env_var="SNAPKEEP_PORT")] = None,
    log_format: Annotated[Literal["text", "json"] | None, Parameter(env_var="SNAPKEEP_LOG_FORMAT")] = None,
) -> None:
    """Run the server: REST API, operations and upkeep in one process, on SQLite.

    More settings are environment variables: SNAPKEEP_LOG_LEVEL, SNAPKEEP_OPERATION_SECONDS, SNAPKEEP_STALL_SECONDS,
    SNAPKEEP_OUTAGE_SECONDS; see the reference of settings.

    Parameters
    ----------
    data_dir
        Where catalog, secret key and token are kept; default: ~/.local/share/snapkeep.
    host
        Loopback address to listen on; default: 127.0.0.1.
    port
        TCP port to listen on, 0 for a free one; default: 8420.
    log_format
        text for people, json for log collectors; default: text.
    """
    from pydantic import ValidationError

    from snapkeep.model.errors import InvalidInput
    from snapkeep.server.main import serve as run
    from snapkeep.server.settings import ServerSettings

    given: dict[str, Any] = {"data_dir": data_dir, "host": host, "port": port, "log_format": log_format}
    try:
        settings = ServerSettings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors(include_input=False))
        raise InvalidInput(f"The settings of the server are not valid: {wrong}") from None
    run(settings)
