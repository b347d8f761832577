"""Scores: scale, monotony, order, floors, drift, and what is too little to say anything."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.changes.summary import Summary
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.signals.entropy import EntropySample
from snapkeep.signals.features import Features
from snapkeep.signals.scoring import LIMIT, MINIMUM, RECENT, THRESHOLD, WINDOW, Verdict, judge

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def listed(day: int, modified: int = 0, *, deleted: int = 0, days: float = 1, **values: Any) -> Features:
    """Return the features of a list that spans so many days."""
    at = START + day * DAY
    given: dict[str, Any] = {"extensions": {"txt": modified}, "extension_renames": 0, "distinct_extensions": 1}
    counts = {"modify": modified, "delete": deleted}
    return Features(at=at, since=at - days * DAY, counts=counts, bytes={}, **(given | values))


def quiet(days: int = 60, low: int = 80, high: int = 120) -> list[Features]:
    chance = random.Random(5)
    return [listed(day, chance.randint(low, high)) for day in range(days)]


def moved(one: Features, days: int) -> Features:
    """Return the same list of another day."""
    assert one.since is not None
    return replace(one, at=one.at + days * DAY, since=one.since + days * DAY)


def test_with_few_lists_nothing_is_said() -> None:
    wild = listed(99, 10**6)
    assert judge(wild, quiet(MINIMUM - 1)) == Verdict(False, (), MINIMUM - 1, None, {})
    assert judge(wild, quiet(MINIMUM)).suspicious


def test_the_z_score_is_that_of_iglewicz_and_hoaglin() -> None:
    """Of 1 to 15 once each the median is 8 and the MAD 4, on any scale that is linear: entropy is."""
    values = [value / 2 for value in range(1, 16)]
    history = [listed(day, entropy=EntropySample(bits, 64, 0)) for day, bits in enumerate(values)]
    score = judge(listed(20, entropy=EntropySample(7.9, 64, 0)), history).scores["entropy"]
    assert score.z == pytest.approx(0.6745 * (7.9 - 4) / 2)


def test_the_reason_has_the_figures() -> None:
    verdict = judge(listed(60, 12_400), quiet())
    assert verdict.suspicious
    (reason,) = verdict.reasons
    assert reason.startswith("12,400 objects modified; usually 8")
    assert verdict.began_at == START + 59 * DAY, "what was there at the older snapshot is clean"
    assert verdict.to_dict()["scores"]["modified"]["value"] == 12_400


def test_nothing_usual_is_suspicious_and_a_burst_that_was_there_before_neither() -> None:
    history = [*quiet(30), listed(30, 2000), *(moved(one, 31) for one in quiet(29))]
    assert not judge(listed(61, 130), history).suspicious
    assert judge(listed(61, 2100), history).scores["modified"].z > THRESHOLD
    assert not judge(listed(61, 2100), history).suspicious, "the end of a month comes every month"
    assert judge(listed(61, 9000), history).suspicious


def test_a_share_on_which_nothing_happens_does_not_alarm_at_little() -> None:
    nothing = [listed(day) for day in range(40)]
    assert not judge(listed(40, 99), nothing).suspicious
    assert judge(listed(40, 100), nothing).suspicious, "MAD is 0, and is taken for the least spread"


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ({"modified": 5000}, "objects modified"),
        ({"modified": 100, "deleted": 5000}, "objects deleted"),
        ({"modified": 100, "extension_renames": 5000}, "files renamed to another extension"),
        ({"modified": 100, "entropy": EntropySample(7.9, 64, 0)}, "bits of entropy"),
        ({"modified": 100, "bytes": {"modify": 2 * 1024**4}}, "2.0 TiB in modified files"),
        ({"modified": 100, "extension_renames": 900, "extensions": {"locked": 900}}, "extensions never seen before"),
    ],
)
def test_each_kind_of_attack_has_its_reason(attack: dict[str, Any], reason: str) -> None:
    history = [replace(one, entropy=EntropySample(5.0, 64, 0)) for one in quiet()]
    given = {"entropy": EntropySample(5.0, 64, 0)} | attack
    modified, size = given.pop("modified"), given.pop("bytes", {})
    verdict = judge(replace(listed(60, modified, **given), bytes=size), history)
    assert [one for one in verdict.reasons if reason in one], verdict.reasons


def test_many_new_files_are_an_import_and_no_attack() -> None:
    wild = replace(listed(60, 100, extensions={"heic": 10**5}), counts={"modify": 100, "add": 10**5})
    verdict = judge(wild, quiet())
    assert not verdict.suspicious
    assert verdict.scores["added"].z > THRESHOLD, "it is shown"


def test_a_sample_of_few_files_says_nothing() -> None:
    history = [replace(one, entropy=EntropySample(5.0, 64, 0)) for one in quiet()]
    assert not judge(listed(60, 100, entropy=EntropySample(8.0, 15, 0)), history).suspicious
    assert "entropy" not in judge(listed(60, 100, entropy=EntropySample(8.0, 15, 0)), history).scores


def test_a_list_over_a_longer_time_is_held_against_so_much_more() -> None:
    assert judge(listed(60, 700), quiet()).suspicious
    verdict = judge(listed(67, 700, days=7), quiet())
    assert not verdict.suspicious
    assert verdict.scores["modified"].usual[1] > 7 * 100
    assert "in 7.0 times the usual time" in judge(listed(67, 9000, days=7), quiet()).reasons[0]


# -- drift -------------------------------------------------------------------------------------------------------------
def drifting(first: int = 60, lists: int = 30, modified: int = 190) -> tuple[list[Features], list[int]]:
    """Live on, with a little more each day; return all lists, and which of them were suspicious."""
    history, suspicious = quiet(first), []
    for day in range(first, first + lists):
        one = listed(day, modified)
        if judge(one, history).suspicious:
            suspicious.append(day - first)
        else:
            history.append(one)
    return history, suspicious


def test_a_slow_drip_is_found_although_no_list_of_it_is_unusual() -> None:
    assert judge(listed(60, 190), quiet()).scores["modified"].z < THRESHOLD
    _, suspicious = drifting()
    assert suspicious
    assert 2 <= suspicious[0] <= 20
    history, _ = drifting(lists=suspicious[0])
    verdict = judge(listed(60 + suspicious[0], 190), history)
    assert "more than that again and again since" in verdict.reasons[0]
    assert verdict.began_at is not None
    assert START + 55 * DAY <= verdict.began_at <= START + 60 * DAY, "what is held is from before the drip"


def test_a_quiet_list_at_the_end_of_a_small_drip_does_not_alarm() -> None:
    """What came together is enough with this list, but this list is none of the drip."""
    history = [listed(day, 5) for day in range(60)] + [listed(60 + day, 12) for day in range(14)]
    quiet_one, another = judge(listed(74, 7), history), judge(listed(74, 12), history)
    assert (quiet_one.scores["modified"].drift or 0) > LIMIT
    assert not quiet_one.suspicious
    assert another.suspicious


def test_what_was_acknowledged_begins_the_sum_anew() -> None:
    _, suspicious = drifting()
    history, _ = drifting(lists=suspicious[0])
    one = listed(60 + suspicious[0], 190)
    known = [*history, replace(one, acknowledged=True)]
    following = replace(one, at=one.at + DAY, since=one.at)
    assert judge(one, history).suspicious
    assert not judge(following, known).suspicious


# -- of all lists ------------------------------------------------------------------------------------------------------
COUNTS = st.integers(0, 10**6)
HISTORIES = st.lists(
    st.tuples(COUNTS, COUNTS, COUNTS, st.floats(0, 8)), min_size=MINIMUM, max_size=MINIMUM + RECENT + 10
)


def history_of(values: list[tuple[int, int, int, float]]) -> list[Features]:
    return [
        listed(day, modified, deleted=deleted, extension_renames=renames, entropy=EntropySample(bits, 64, 0))
        for day, (modified, deleted, renames, bits) in enumerate(values)
    ]


@given(HISTORIES, st.tuples(COUNTS, COUNTS, COUNTS, st.floats(0, 8)), st.randoms(use_true_random=False))
def test_the_order_in_which_the_history_comes_is_nothing(
    values: list[tuple[int, int, int, float]], one: tuple[int, int, int, float], chance: random.Random
) -> None:
    history = history_of(values)
    judged = history_of([*values, one])[-1]
    other = history[:]
    chance.shuffle(other)
    assert judge(judged, history) == judge(judged, other)


@given(
    HISTORIES,
    st.tuples(COUNTS, COUNTS, COUNTS, st.floats(0, 8)),
    st.tuples(COUNTS, COUNTS, COUNTS, st.floats(0, 8)),
)
def test_more_of_an_attack_never_scores_less(
    values: list[tuple[int, int, int, float]], one: tuple[int, int, int, float], more: tuple[int, int, int, float]
) -> None:
    history = history_of(values)
    greater = (one[0] + more[0], one[1] + more[1], one[2] + more[2], min(8.0, one[3] + more[3]))
    less, much = (judge(history_of([*values, which])[-1], history) for which in (one, greater))
    for name, score in less.scores.items():
        assert much.scores[name].z >= score.z
        if score.drift is not None:
            assert (much.scores[name].drift or 0) >= score.drift
    assert much.suspicious or not less.suspicious
    assert len(much.reasons) >= len(less.reasons)


@given(st.integers(2, 1000), st.integers(50, 5000))
def test_what_is_unusual_is_so_on_a_scale_of_its_own(times: int, modified: int) -> None:
    """The same life, so many times as busy, has nearly the same scores."""
    history = [replace(one, counts={"modify": one.counts["modify"] * times}) for one in quiet()]
    one, much = judge(listed(60, modified), quiet()), judge(listed(60, modified * times), history)
    assert much.scores["modified"].z == pytest.approx(one.scores["modified"].z, abs=0.1)


@given(HISTORIES)
def test_only_the_latest_are_looked_at(values: list[tuple[int, int, int, float]]) -> None:
    history = quiet(WINDOW)
    old = [moved(one, -1000) for one in history_of(values)]
    assert judge(listed(WINDOW, 300), [*old, *history]) == judge(listed(WINDOW, 300), history)


@given(HISTORIES)
def test_features_and_verdicts_are_json_and_back(values: list[tuple[int, int, int, float]]) -> None:
    *history, one = history_of(values)
    assert Features.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    json.dumps(judge(one, history).to_dict())


def test_the_features_of_a_summary_and_of_one_of_an_earlier_version() -> None:
    summary = Summary()
    summary.add([Change(ChangeOperation.RENAME, ObjectType.FILE, b"a.locked", b"a.txt", 5)])
    whole = summary.to_dict()
    found = Features.of(whole, at=START, since=None)
    assert (found.extensions, found.extension_renames, found.counts) == ({"locked": 1}, 1, {"rename": 1})
    old = {name: whole[name] for name in ("entries", "operations", "types", "type_bytes", "top_directories")}
    bare = Features.of(old, at=START, since=None)
    assert (bare.extensions, bare.extension_renames, bare.hours) == (None, None, None)
    verdict = judge(replace(bare, counts={"modify": 5000}), quiet())
    assert verdict.suspicious
    assert "extension_renames" not in verdict.scores
