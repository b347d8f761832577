"""Four-eyes: what one person may not do alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from snapkeep.model.access import Action
from snapkeep.model.errors import InvalidInput

ALWAYS = frozenset({Action.FOUR_EYES_CHANGE, Action.COOLING_CHANGE, Action.IDENTITY_MANAGE})
"""What needs a second person whatever was chosen: otherwise one could free himself of the rest, or make up another."""
USUAL = ALWAYS | {
    Action.SNAPSHOT_DELETE,
    Action.SNAPSHOT_RESTORE,
    Action.BACKUP_FORGET,
    Action.BACKUP_PUT_BACK,
    Action.SYSTEM_REMOVE,
    Action.REPOSITORY_REMOVE,
    Action.HOLD_RELEASE,
    Action.LOCK_SHORTEN,
    Action.POLICY_CHANGE,
    Action.POLICY_PRUNE,
}
"""What needs a second person unless something else is chosen."""


class ApprovalState(StrEnum):
    """Where an approval is in its life."""

    OPEN = "open"
    """It waits for decisions."""
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    USED = "used"


@dataclass(frozen=True, slots=True)
class FourEyes:
    """Which actions need the approval of others."""

    actions: frozenset[str]
    needed: int
    """How many others must approve."""
    hours: int
    """How long a request may be approved and used."""

    def covers(self, action: str) -> bool:
        """Say whether an action needs approval."""
        return action in self.actions or action in ALWAYS


def require_coverable(actions: frozenset[str]) -> None:
    """Raise InvalidInput for what cannot need approval: reading, and approving itself."""
    for action in sorted(actions):
        if action not in set(Action) or action.endswith(".read") or action == Action.APPROVAL_DECIDE:
            raise InvalidInput(
                f"{action!r:.120} is no action that can need approval",
                next_step=f"Choose of {', '.join(sorted(USUAL))}, or other actions that change something.",
            )
