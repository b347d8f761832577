"""``python -m snapkeep.simulators.nutanix_files --data-dir DIR``."""

import argparse
from pathlib import Path

from snapkeep.simulators.nutanix_files import Options, run


def parse(arguments: list[str] | None = None) -> Options:
    """The command line as options."""
    parser = argparse.ArgumentParser(
        prog="python -m snapkeep.simulators.nutanix_files", description="A simulator of Nutanix Files."
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="where everything lives")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one")
    scheme = parser.add_mutually_exclusive_group()
    scheme.add_argument("--tls", dest="tls", action="store_true", default=True, help="HTTPS with an own CA (default)")
    scheme.add_argument("--http", dest="tls", action="store_false", help="plain HTTP")
    parser.add_argument(
        "--name", dest="names", action="append", default=[], help="another name for the certificate; repeatable"
    )
    parser.add_argument("--partner-server", metavar="NAME", help="register this partner server on every file server")
    parser.add_argument("--config", type=Path, help="JSON with settings, file_servers, accounts, faults")
    parser.add_argument("--no-control", dest="control", action="store_false", help="do not serve /simulator/v1")
    parser.add_argument(
        "--empty", dest="default_content", action="store_false", help="no default content in a fresh directory"
    )
    found = vars(parser.parse_args(arguments))
    return Options(**{**found, "names": tuple(found["names"])})


if __name__ == "__main__":
    run(parse())
