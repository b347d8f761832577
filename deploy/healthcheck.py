"""HEALTHCHECK of the image: ends with 0 when the server on this data directory can work, and says what fails else."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from snapkeep.cli.trust import present, trust_here
from snapkeep.model.errors import SnapkeepError

SECONDS = 5.0


def main() -> int:
    """Ask the server; no proxy is asked on the way to this very machine."""
    try:
        address = json.loads((Path(os.environ["SNAPKEEP_DATA_DIR"]) / "server.json").read_text())
        trust = trust_here(address)
        present(trust, _path("SNAPKEEP_CLIENT_CERT"), _path("SNAPKEEP_CLIENT_KEY"))
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        opener = urllib.request.build_opener(*handlers)
        with opener.open(f"{address['url']}/health/ready", timeout=SECONDS) as answer:
            sys.stdout.write(answer.read().decode())
    except urllib.error.HTTPError as error:
        sys.stdout.write(error.read().decode(errors="replace"))
        return 1
    except (OSError, ValueError, KeyError, SnapkeepError) as error:
        sys.stdout.write(f"{type(error).__name__}: {error}")
        return 1
    return 0


def _path(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


if __name__ == "__main__":
    sys.exit(main())
