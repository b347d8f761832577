"""Four-eyes: a request that needs approval is recorded, others decide, and then whoever asked sends it again.

The server never acts in place of the requester: an approval lets the very same request of the same person pass, once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import ApprovalRecord, Decision
from snapkeep.identity.service import Identities
from snapkeep.model.access import Action, IdentityKind, Principal
from snapkeep.model.approvals import ApprovalState, FourEyes, require_coverable
from snapkeep.model.errors import ApprovalRequired, Conflict, LimitExceeded, NotFound, PermissionDenied
from snapkeep.operations.clock import Clock

MOST_OPEN = 100
"""So many requests of one person wait for approval at most."""
LONGEST_BODY = 65_536
"""Bytes of a body that are kept for those who approve."""

_SECRET = frozenset({"password", "secret", "url", "old", "new", "secrets", "token", "settings", "client_secret"})
_HIDDEN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was sent."""

    method: str
    path: str
    query: str
    body: bytes

    @property
    def digest(self) -> str:
        """What makes it the same as another one."""
        parts = (self.method.encode(), self.path.encode(), self.query.encode(), self.body)
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()

    def shown(self) -> tuple[str, bool]:
        """Return the body for those who approve, and whether something of it is hidden: then it cannot be sent again
        from here."""
        try:
            text = self.body.decode()
            without = _without_secrets(json.loads(text)) if text else None
        except ValueError:
            return self.body[:LONGEST_BODY].decode("utf-8", "replace"), True
        if len(self.body) > LONGEST_BODY:
            return json.dumps(without)[:LONGEST_BODY], True
        is_whole = not text or without == json.loads(text)
        return (text, False) if is_whole else (json.dumps(without), True)


class Approvals:
    """What the server asks before it does what one person may not do alone."""

    def __init__(self, catalog: Catalog, identities: Identities, clock: Clock) -> None:
        self._catalog = catalog
        self._identities = identities
        self._clock = clock

    # -- what needs one ----------------------------------------------------------------------------------------------
    async def set_four_eyes(self, by: Principal, wanted: FourEyes | None) -> None:
        """Turn it on or off. Raises InvalidInput, Conflict when there are too few others who could approve."""
        if wanted is not None:
            require_coverable(wanted.actions)
            others = [name for name in await self._approvers() if name != by.name]
            if len(others) < wanted.needed:
                raise Conflict(
                    f"Only {len(others)} others could approve what needs {wanted.needed}",
                    next_step=f"First give users a role with {Action.APPROVAL_DECIDE} for everything, such as "
                    "administrator or security-officer.",
                )
        await self._catalog.approvals.set_four_eyes(wanted, by=by.name)

    async def _approvers(self) -> list[str]:
        found = await self._catalog.identities.find(kind=IdentityKind.USER, disabled=False)
        return [item.name for item in found if await self._approver(item.name) is not None]

    async def _approver(self, name: str) -> Principal | None:
        """Return somebody who may approve now: a user, whose rights hold for everything."""
        principal = await self._identities.known(name)
        may = principal and principal.kind is IdentityKind.USER and principal.may(Action.APPROVAL_DECIDE)
        return principal if may else None

    # -- asking ------------------------------------------------------------------------------------------------------
    async def require(self, by: Principal, action: str, subject: str, asked: Asked, approval_id: str | None) -> bool:
        """Let a request pass that needs no approval, or has one, which is used by that; say whether one was used.

        Raises ApprovalRequired with the id of what others have to approve; NotFound, Conflict or PermissionDenied for
        an approval that lets nothing pass.
        """
        policy = await self._catalog.approvals.four_eyes()
        if policy is None or not policy.covers(action):
            return False
        if approval_id is None:
            raise _required(await self._record(by, action, subject, asked, policy))
        try:
            approval = await self._catalog.approvals.get(approval_id, by.name)
        except NotFound as error:  # said of the approval, not of what the request is about
            raise Conflict(f"{by.name!r} has no approval {approval_id!r:.80}", next_step=error.next_step) from error
        await self._use(approval, asked, policy, action, subject)
        return True

    async def _record(self, by: Principal, action: str, subject: str, asked: Asked, policy: FourEyes) -> ApprovalRecord:
        """Record the request, unless the same waits already."""
        approvals, now = self._catalog.approvals, await self._now()
        waiting = (ApprovalState.OPEN, ApprovalState.APPROVED)
        same = await approvals.find(
            requester=by.name, digest=asked.digest, states=waiting, at=now, paging=Paging(limit=1)
        )
        if same and same[0].needed >= policy.needed:
            return same[0]
        open_ones = await approvals.find(requester=by.name, states=waiting, at=now, paging=Paging(limit=MOST_OPEN))
        if len(open_ones) >= MOST_OPEN:
            raise LimitExceeded(
                f"{MOST_OPEN} requests of {by.name!r} wait for approval already",
                next_step="Let others decide about them first, or wait until they expire.",
            )
        body, hidden = asked.shown()
        record = ApprovalRecord(
            id=self._clock.new_id(),
            action=action,
            subject=subject,
            method=asked.method,
            path=asked.path,
            query=asked.query,
            digest=asked.digest,
            body=body,
            hidden=hidden,
            requester=by.name,
            needed=policy.needed,
            decisions=(),
            state=ApprovalState.OPEN,
            created_at=now,
            expires_at=now + timedelta(hours=policy.hours),
        )
        await approvals.add(record)
        return record

    async def _use(self, approval: ApprovalRecord, asked: Asked, policy: FourEyes, action: str, subject: str) -> None:
        """Use an approval up. Who has approved must still be allowed to."""
        now = await self._now()
        state = self.state_of(approval, now)
        if approval.digest != asked.digest:
            raise Conflict(
                f"The approval {approval.id[:8]} is for another request: {approval.method} {approval.path}",
                next_step="Send exactly what was approved, or ask for approval of this.",
            )
        if (approval.action, approval.subject) != (action, subject):  # a name or the beginning of an id led elsewhere
            raise Conflict(
                f"The approval {approval.id[:8]} is for {approval.action} of {approval.subject}",
                next_step="Ask for approval of this.",
            )
        if state is ApprovalState.OPEN:
            raise _required(approval)
        if state is ApprovalState.REFUSED:
            raise PermissionDenied(
                f"This was refused: {approval.decisions[-1].comment or 'without a comment'}",
                next_step=f"See `snapkeep approval show {approval.id}`.",
            )
        if state is not ApprovalState.APPROVED:
            raise _over(approval, state)
        yes = [one for one in approval.decisions if one.approves and await self._counts(one)]
        if len(yes) < max(approval.needed, policy.needed):
            await self._catalog.approvals.end(approval, ApprovalState.EXPIRED, now)
            raise Conflict(
                "Of those who have approved, too few still may",
                next_step="Send the request again without the approval, and let others approve it.",
            )
        if not await self._catalog.approvals.end(approval, ApprovalState.USED, now):
            raise _over(approval, ApprovalState.USED)

    async def _counts(self, decision: Decision) -> bool:
        """Say whether somebody who has approved still may, and is still the same one."""
        try:
            identity = await self._catalog.identities.get(decision.by)
        except NotFound:
            return False
        return identity.created_at <= decision.at and await self._approver(decision.by) is not None

    # -- deciding ----------------------------------------------------------------------------------------------------
    async def decide(self, by: Principal, approval_id: str, comment: str, *, approves: bool) -> ApprovalRecord:
        """Approve or refuse. Raises PermissionDenied for who may not about this one, NotFound, Conflict."""
        approval = await self._catalog.approvals.get(approval_id)
        if not by.is_session:
            raise PermissionDenied(
                f"{by.name!r} is no user who has logged in: only people approve",
                next_step="Log in with `snapkeep login`, or let another user decide.",
            )
        if by.name == approval.requester:
            raise PermissionDenied("Nobody decides about what he has asked for", next_step="Let another user decide.")
        return await self._catalog.approvals.decide(approval, Decision(by.name, await self._now(), approves, comment))

    # -- the time ----------------------------------------------------------------------------------------------------
    def state_of(self, approval: ApprovalRecord, now: datetime) -> ApprovalState:
        """Return the state of an approval at a time."""
        waits = approval.state in {ApprovalState.OPEN, ApprovalState.APPROVED}
        return ApprovalState.EXPIRED if waits and approval.expires_at <= now else approval.state

    async def _now(self) -> datetime:
        """Return the later of two clocks: none that is set back brings an approval back."""
        return max(await self._catalog.database.now(), await self._catalog.protections.time.now())

    async def now(self) -> datetime:
        """Return the time by which approvals expire."""
        return await self._now()


def _required(approval: ApprovalRecord) -> ApprovalRequired:
    given = sum(one.approves for one in approval.decisions)
    if approval.state is ApprovalState.APPROVED:
        step = f"It is approved: `snapkeep approval run {approval.id[:8]}`, or repeat the command with --approval."
    else:
        step = (
            f"Let others approve it: `snapkeep approval approve {approval.id[:8]}`. Then repeat this with --approval "
            f"{approval.id[:8]}, or `snapkeep approval run {approval.id[:8]}`."
        )
    return ApprovalRequired(
        f"{approval.action} needs the approval of {approval.needed} others ({given} have approved): {approval.id}",
        next_step=step,
        approval_id=approval.id,
        state=approval.state.value,
        needed=approval.needed,
        expires_at=approval.expires_at.isoformat(timespec="seconds"),
    )


def _over(approval: ApprovalRecord, state: ApprovalState) -> Conflict:
    return Conflict(
        f"The approval {approval.id[:8]} is {state}",
        next_step="Send the request again without it: it is then recorded anew.",
    )


def _without_secrets(value: Any) -> Any:
    """Return a body as others may read it. What plug-ins call their secrets is not known: no setting is shown."""
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown: dict[str, Any] = {}
    for key, item in value.items():
        if key == "settings" and isinstance(item, dict):
            shown[key] = dict.fromkeys(item, _HIDDEN)
        else:
            is_secret = key in _SECRET and item is not None
            shown[key] = _HIDDEN if is_secret else _without_secrets(item)
    return shown
