"""Labels of systems and assets: KEY=VALUE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from snapkeep.cli.options import Common
from snapkeep.model.errors import InvalidInput

Json = dict[str, Any]
LONGEST = 300
"""Characters of what is worth asking the server whether it is a label."""


def shown(row: Json) -> Json:
    """Return a system or an asset for people: its labels as one text."""
    return {**row, "labels": ", ".join(f"{key}={value}" for key, value in sorted(row["labels"].items())) or None}


def parse(text: str) -> tuple[str, str]:
    """Split KEY=VALUE. Raises InvalidInput."""
    key, equals, value = text.partition("=")
    if not key or not equals or not value or len(text) > LONGEST:
        raise InvalidInput(f"{text!r:.120} has not the form KEY=VALUE", next_step="Write for instance team=web.")
    return key, value


def changed(labels: Json, add: Iterable[str], remove: Iterable[str]) -> Json:
    """Return labels after some were set and others taken away. Raises InvalidInput."""
    added, removed = dict(map(parse, add)), set(remove)
    if not added and not removed:
        raise InvalidInput("Nothing is to be changed", next_step="Give KEY=VALUE, or --remove KEY.")
    return {key: value for key, value in {**labels, **added}.items() if key not in removed}


def change(common: Common, rest: Any, name: str, path: str, add: Iterable[str], remove: Iterable[str]) -> None:
    """Change the labels of what has this path, and say what it has now. Raises InvalidInput, Conflict when somebody
    else has changed them meanwhile."""
    from snapkeep.cli import output

    before, tag = rest.read(f"{path}/labels")
    body = {"labels": changed(before["labels"], add, remove)}
    subject = rest.request("PUT", f"{path}/labels", json=body, headers={"If-Match": tag})
    if common.json:
        output.print_json(subject)
    else:
        sentence = f"Labels of {name}: {shown(subject)['labels'] or 'none'}"
        output.console.print(output.printable(sentence), markup=False, soft_wrap=True)
