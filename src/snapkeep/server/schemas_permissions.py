"""The form of the answer to what an account needs on a system."""

from __future__ import annotations

from pydantic import Field

from snapkeep.plugin.grants import Grant
from snapkeep.server.schemas import Out


class RightOut(Out):
    """One right on the system."""

    name: str
    operations: list[str] = Field(description="Which of the operations need it.")
    allows: list[str] = Field(description="What it allows there, in the system's own terms.")


class GrantOut(Out):
    """What an account needs for some operations, and how an administrator grants it."""

    plugin: str
    operations: list[str]
    rights: list[RightOut]
    kind: str = Field(description="What is to be made on the system.")
    text: str = Field(description="The file to install, or the body of the request that makes the role.")
    steps: list[str]
    limits: list[str] = Field(description="What the system cannot tell apart, or what no public document says.")

    @classmethod
    def of(cls, plugin: str, grant: Grant) -> GrantOut:
        """Map it."""
        return cls(
            plugin=plugin,
            operations=[capability.value for capability in grant.capabilities],
            rights=[
                RightOut(
                    name=right.name,
                    operations=[capability.value for capability in right.capabilities],
                    allows=list(right.allows),
                )
                for right in grant.rights
            ],
            kind=grant.instructions.kind,
            text=grant.instructions.text,
            steps=list(grant.instructions.steps),
            limits=list(grant.instructions.limits),
        )
