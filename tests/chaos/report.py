"""The summary of a run, for people."""

from __future__ import annotations

from tests.chaos.run import Outcome

SHOWN = 20


def summary(outcome: Outcome) -> str:
    """Return the table, and what is wrong in sentences."""
    options, kills, verdict = outcome.options, outcome.kills, outcome.verdict
    rows = [
        ("store", options.store),
        ("seed", str(options.seed)),
        ("kills", f"{kills.count}: {_counts(dict(kills.victims.most_common()))}"),
        ("with operations in flight", f"{kills.hits} of {kills.count}{_unknown(kills.unknown)}"),
        ("of a process at work on one", str(kills.at_work)),
        *(("  in flight", f"{count:5} x {kind}: {phase}") for (kind, phase), count in kills.phases.most_common(SHOWN)),
        ("operations", str(verdict.ends.total())),
        *(("  ended", f"{count:5} x {kind} {end}") for (kind, end), count in sorted(verdict.ends.items())),
        ("rounds of the clients", f"{outcome.rounds}, {outcome.repeats} requests repeated"),
        *(("checked", f"{count:5} {what}") for what, count in verdict.counts.items()),
        ("lost", str(len(verdict.lost))),
        ("doubled", str(len(verdict.doubled))),
        ("orphans unnamed", str(len(verdict.unnamed))),
        ("hangs", str(len(verdict.hangs))),
        ("failed without a good reason", str(len(verdict.failed))),
        ("failed with a good reason", f"{len(verdict.excused)}{_first(verdict.excused)}"),
        ("wrong otherwise", str(len(verdict.wrong))),
        ("longest from kill to end", f"{verdict.slowest:.1f} s"),
        ("duration", f"{outcome.seconds:.0f} s"),
    ]
    lines = [f"{name:30}{value}" for name, value in rows]
    lines += [f"NOT CHECKED: {sentence}" for sentence in verdict.not_checked]
    for name in ("lost", "doubled", "unnamed", "hangs", "failed", "wrong"):
        found = getattr(verdict, name)
        lines += [f"{name.upper()}: {sentence}" for sentence in found[:SHOWN]]
        lines += [f"{name.upper()}: and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    if not verdict.passed or options.keep:
        lines.append(f"Data and logs: {outcome.root}")
    return "\n".join([*lines, "PASSED" if verdict.passed else "FAILED"])


def _first(sentences: list[str]) -> str:
    return f", for instance {sentences[0]:.250}" if sentences else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _unknown(count: int) -> str:
    return f" ({count} unknown: the catalog could not be read)" if count else ""
