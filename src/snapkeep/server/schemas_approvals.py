"""The schemas of four-eyes, approvals and cooling."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from snapkeep.catalog.records import ApprovalRecord
from snapkeep.model.approvals import ALWAYS, USUAL, ApprovalState, FourEyes
from snapkeep.server.schemas import In, Out


# -- requests ----------------------------------------------------------------------------------------------------------
class FourEyesIn(In):
    """Whether what destroys needs the approval of others."""

    enabled: bool
    actions: list[str] = Field(
        default=sorted(USUAL), max_length=200, description="What needs approval; some things always do."
    )
    needed: int = Field(default=1, ge=1, le=5, description="How many others must approve.")
    hours: int = Field(default=24, ge=1, le=720, description="How long a request can be approved and used.")


class DecisionIn(In):
    """Why somebody approves or refuses."""

    comment: str = Field(default="", max_length=300)


# -- answers -----------------------------------------------------------------------------------------------------------
class FourEyesOut(Out):
    """Whether what destroys needs the approval of others; `actions`: with those that always do, when it is on."""

    enabled: bool
    actions: list[str]
    needed: int
    hours: int

    @classmethod
    def of(cls, policy: FourEyes | None) -> FourEyesOut:
        """Map it."""
        if policy is None:
            return cls(enabled=False, actions=[], needed=0, hours=0)
        return cls(enabled=True, actions=sorted({*policy.actions, *ALWAYS}), needed=policy.needed, hours=policy.hours)


class DecisionOut(Out):
    """What somebody thinks of a request."""

    by: str
    at: datetime
    approves: bool
    comment: str


class ApprovalOut(Out):
    """A request that others have to approve. `hidden`: something of the body is not shown, so only who has asked can
    send it again. `digest`: SHA-256 of method, path, query and body.
    """

    id: str
    state: str
    action: str
    subject: str
    requester: str
    method: str
    path: str
    query: str
    body: str
    hidden: bool
    digest: str
    needed: int
    decisions: list[DecisionOut]
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, record: ApprovalRecord, state: ApprovalState) -> ApprovalOut:
        """Map the record; `state`: as it is now."""
        return cls(
            id=record.id,
            state=state.value,
            action=record.action,
            subject=record.subject,
            requester=record.requester,
            method=record.method,
            path=record.path,
            query=record.query,
            body=record.body,
            hidden=record.hidden,
            digest=record.digest,
            needed=record.needed,
            decisions=[
                DecisionOut(by=one.by, at=one.at, approves=one.approves, comment=one.comment)
                for one in record.decisions
            ],
            created_at=record.created_at,
            expires_at=record.expires_at,
        )
