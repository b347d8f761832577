"""What an account needs on a system for some capabilities, in words with which its administrator can grant it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from snapkeep.model.assets import Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right. `capabilities`: those that need it; `allows`: what it allows, in the system's own terms."""

    name: str
    capabilities: tuple[Capability, ...]
    allows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """How an administrator grants rights on one kind of system.

    `kind`: what is made there; `text`: the file to install or the request to send, to be copied as it is; `steps`: what
    is done with it; `limits`: what the system cannot tell apart, or what no public document says.
    """

    kind: str
    text: str
    steps: tuple[str, ...]
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The rights for some capabilities, each once, and how they are granted."""

    capabilities: tuple[Capability, ...]
    rights: tuple[Right, ...]
    instructions: Instructions


Explain = Callable[[Sequence[Right], Sequence[Capability]], Instructions]
"""How a plug-in says it."""


def by_right(
    permissions: Mapping[Capability, Sequence[str]],
    capabilities: Iterable[Capability],
    allows: Mapping[str, tuple[str, ...]],
) -> tuple[Right, ...]:
    """Return each right once, in the order in which the capabilities name them."""
    wanted: dict[str, list[Capability]] = {}
    for capability in capabilities:
        for name in permissions.get(capability, ()):
            wanted.setdefault(name, []).append(capability)
    return tuple(
        Right(name=name, capabilities=tuple(users), allows=allows.get(name, ())) for name, users in wanted.items()
    )


def plainly(rights: Sequence[Right], _capabilities: Sequence[Capability]) -> Instructions:
    """Return the names, for a plug-in that says nothing of its own."""
    return Instructions(
        kind="a role with these rights",
        text="\n".join(right.name for right in rights) + "\n",
        steps=("Make a role with these rights, and give it to the account.",),
    )
