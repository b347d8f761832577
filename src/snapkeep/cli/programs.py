"""What programs run before and after a snapshot: the options, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cyclopts import Parameter

from snapkeep.model.programs import SECONDS

Json = dict[str, Any]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Programs:
    """Which programs run around the snapshot."""

    before: str | None = None
    """Program that runs before, by its name on the worker that takes the snapshot; when it fails, none is taken."""

    after: str | None = None
    """Program that runs afterwards, also when no snapshot could be taken."""

    program_seconds: int = SECONDS
    """How long each of them may take; then it is ended."""

    @property
    def body(self) -> Json:
        """The part of a request that names them."""
        if self.before is None and self.after is None:
            return {}
        return {"programs": {"before": self.before, "after": self.after, "seconds": self.program_seconds}}


NO_PROGRAMS = Programs()


def after_failed(result: Json) -> Iterator[str]:
    """Yield sentences on a program after the snapshot that failed, although there is the snapshot."""
    if error := result.get("after_failed"):
        said = ": ".join(text for text in (error["message"], error["vendor_message"]) if text)
        yield f"The snapshot is there, but what runs afterwards did not do its work: {said}"
        yield f"  {error['next_step']}"
