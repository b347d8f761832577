"""Every command, from the command line's own help."""

from __future__ import annotations

import re

from generators.markdown import page
from snapkeep.cli.main import app as cli


def cli_page() -> str:
    """Every command, from the command line's own help."""
    text = cli.generate_docs()
    common = re.search(r"\*\*Common options\*\*:\n\n((?:[*] .*\n)+)", text)
    if common is None:
        raise ValueError("the command line has no common options any more")
    text = re.sub(r"\*\*Common options\*\*:\n\n(?:[*] .*\n)+", "And the [common options](#common-options).\n", text)
    text = re.sub(r" \*\[default: (\[\]|False)\]\*", "", text)
    commands = text[text.index("## snapkeep system") :]
    return page(
        "Command line",
        "Every command has `--help`. Names of things are `system`, `system/asset` and `system/asset@snapshot`. "
        "Exit codes are [listed with the errors](errors.md#exit-codes).",
        "`snapkeep --version` shows the version.",
        "## Common options",
        "Every command that asks the server has these. They stand behind the command.",
        common[1],
        commands,
    )
