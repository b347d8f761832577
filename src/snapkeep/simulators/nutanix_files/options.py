"""How a simulator is started."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    data_dir: Path
    """Where everything lives; made when missing, taken up again when it exists."""

    host: str = "127.0.0.1"
    """The address to listen on."""

    port: int = 0
    """The port to listen on; 0: any free one."""

    tls: bool = True
    """HTTPS with a certificate authority of the data directory's own; else plain HTTP."""

    names: tuple[str, ...] = ()
    """More host names and addresses for the server's certificate."""

    config: Path | None = None
    """A JSON file with ``settings``, ``file_servers``, ``accounts``, ``faults``, ``replication``."""

    control: bool = True
    """Whether the control API (``/simulator/v1``) is served."""

    partner_server: str | None = None
    """Name of a partner server of type BACKUP that every file server gets at the start, if it lacks it."""

    default_content: bool = True
    """Whether a fresh data directory gets the default file servers and shares."""
