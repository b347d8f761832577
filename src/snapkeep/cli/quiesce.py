"""What is held at a consistent point while a snapshot is taken: the options, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.options import Several
from snapkeep.cli.references import parse_asset

Json = dict[str, Any]
Quiesce = Annotated[Several, Parameter(name="--quiesce")]
Seconds = Annotated[int, Parameter(name="--quiesce-seconds")]
SECONDS = 60


def quiesce_body(rest: Any, assets: Sequence[str], seconds: int) -> Json:
    """Return the part of a request that says what is to be held."""
    if not assets:
        return {}
    return {"quiesce": [rest.asset(parse_asset(each))["id"] for each in assets], "quiesce_seconds": seconds}


def consistency(result: Json) -> Iterator[str]:
    """Yield a sentence on what came of it, where something was to be held."""
    if result.get("consistency_reason"):
        yield f"Only crash-consistent: {result['consistency_reason']}"
    elif result.get("quiesced"):
        yield f"Application-consistent: {', '.join(result['quiesced'])} held from before until after"
