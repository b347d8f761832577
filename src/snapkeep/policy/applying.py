"""Taking a policy as somebody has written it into the catalog: all or nothing, with every mistake."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.policies import PolicyRecord
from snapkeep.model.errors import InvalidInput
from snapkeep.operations.clock import Clock
from snapkeep.policy.document import Policy
from snapkeep.policy.reading import Mistake, Written, read_policies
from snapkeep.policy.selecting import Loaded, all_assets, can

MOST_POLICIES: Final = 1000
_WHEN: Final = ("do", "schedule", "repository")


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy that can be stored; `notes`: what is allowed, but hardly meant."""

    written: Written
    notes: list[str]
    assets: int
    """How many are under it at present."""


async def draft(catalog: Catalog, name: str, text: str) -> Draft:
    """Read a policy of a name. Raises InvalidInput with all mistakes."""
    found, mistakes = read_policies(text)
    wrong = [mistake for mistake in mistakes if mistake.is_error]
    if not wrong and len(found) != 1:
        wrong.append(Mistake(1, "", f"one policy is expected, not {len(found)}"))
    if not wrong and found[0].policy.name != name:
        wrong.append(Mistake(found[0].line, "name", f"{found[0].policy.name!r} is not the name {name!r:.80}"))
    if not wrong:
        wrong = await _unknown_repositories(catalog, found[0])
    if wrong:
        raise InvalidInput(
            f"The policy {name!r:.80} is not valid: " + "; ".join(map(str, wrong[:3])),
            next_step="Correct it: `snapkeep policy validate FILE` says the same, with all mistakes.",
            fields=[str(mistake) for mistake in wrong],
            mistakes=[{"line": one.line, "where": one.where, "message": one.message} for one in wrong],
        )
    policy = found[0].policy
    under, unable = await _counts(catalog, policy)
    notes = [str(mistake) for mistake in mistakes]
    notes += [] if under else ["no asset is under it at present"]
    notes += [f"{count} assets under it cannot do what {step!r} does" for step, count in unable.items() if count]
    return Draft(found[0], notes, under)


async def apply(
    catalog: Catalog, clock: Clock, known: PolicyRecord | None, wanted: Draft, by: str = ""
) -> PolicyRecord:
    """Store it, and have it told by whom.

    Nothing changes, not even the time from which on it deletes, where the text is the same. Raises Conflict when
    somebody has changed it since it was read.
    """
    policy, text = wanted.written.policy, wanted.written.text
    document = policy.model_dump(mode="json")
    cooling = timedelta(hours=(await catalog.cooling.get()).hours)
    if known is None:
        if len(await catalog.policies.find()) >= MOST_POLICIES:
            raise InvalidInput(f"There are {MOST_POLICIES} policies already", next_step="Remove one, or join some.")
        return await catalog.policies.add(
            clock.new_id(), name=policy.name, text=text, document=document, now=clock.now(), cooling=cooling, by=by
        )
    if known.text == text:
        return known
    return await catalog.policies.change(
        known,
        text=text,
        document=document,
        begun_anew=_begun_anew(known, policy),
        now=clock.now(),
        cooling=cooling,
        by=by,
    )


def _begun_anew(known: PolicyRecord, policy: Policy) -> list[str]:
    """Return the steps that are another thing by now, or due at other times: what was due before is not made up for."""
    try:
        before = Loaded.of(known)
    except ValueError:
        return [step.name for step in policy.steps]
    same_zone = before.policy.timezone == policy.timezone
    steps = {step.name: step for step in policy.steps}

    def is_same(name: str) -> bool:
        old, new = before.steps[name], steps.get(name)
        return same_zone and new is not None and all(getattr(old, word) == getattr(new, word) for word in _WHEN)

    return [name for name in before.steps if not is_same(name)]


async def _unknown_repositories(catalog: Catalog, written: Written) -> list[Mistake]:
    known = {repository.name for repository in await catalog.repositories.find()}
    return [
        Mistake(written.line, f"steps.{number}.repository", f"there is no repository {step.repository!r}")
        for number, step in enumerate(written.policy.steps)
        if step.repository is not None and step.repository not in known
    ]


async def _counts(catalog: Catalog, policy: Policy) -> tuple[int, dict[str, int]]:
    """Count the assets under a policy, and by step those that cannot do what it does."""
    under, unable = 0, {step.name: 0 for step in policy.steps}
    async for page in all_assets(catalog):
        for labelled in page:
            if labelled.is_under(policy):
                under += 1
                for step in policy.steps:
                    unable[step.name] += not can(labelled.asset.asset, step)
    return under, unable
