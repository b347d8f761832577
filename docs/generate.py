"""Write the pages below `reference/` from the product itself: `python docs/generate.py`; `--check` only compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from generators.cli import cli_page
from generators.errors import errors_page
from generators.plugins import plugins_page
from generators.rest import rest_page
from generators.roles import roles_page
from generators.settings import settings_page

REFERENCE = Path(__file__).parent / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "rest.md": rest_page,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "plugins.md": plugins_page,
    "roles.md": roles_page,
}


def main() -> int:
    """Write the pages that changed, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is out of date")
    check: bool = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    for name in stale:
        sys.stdout.write(f"{'out of date' if check else 'written'}: reference/{name}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
