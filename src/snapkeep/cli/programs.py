"""What programs run before and after a snapshot: the options, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from cyclopts import Parameter

Json = dict[str, Any]
Before = Annotated[str | None, Parameter(name="--before")]
After = Annotated[str | None, Parameter(name="--after")]
ProgramSeconds = Annotated[int, Parameter(name="--program-seconds")]
PROGRAM_SECONDS = 60


def programs_body(before: str | None, after: str | None, seconds: int) -> Json:
    """Return the part of a request that names programs."""
    if before is None and after is None:
        return {}
    return {"programs": {"before": before, "after": after, "seconds": seconds}}


def after_failed(result: Json) -> Iterator[str]:
    """Yield sentences on a program after the snapshot that failed, although there is the snapshot."""
    if error := result.get("after_failed"):
        said = ": ".join(text for text in (error["message"], error["vendor_message"]) if text)
        yield f"The snapshot is there, but what runs afterwards did not do its work: {said}"
        yield f"  {error['next_step']}"
