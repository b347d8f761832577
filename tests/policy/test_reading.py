"""Policies as people write them, and what they are told about their mistakes."""

from __future__ import annotations

import json
from datetime import date, timedelta

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.model.assets import AssetKind
from snapkeep.policy.document import Policy, schema
from snapkeep.policy.reading import read_policies

GOOD = """\
# What people work on
name: projects
assets:
  - system: files*
    kind: share
    labels: {env: prod}
exclude:
  - name: scratch*
timezone: Europe/Zurich
rpo: 2h
blackout: [2026-12-24]
steps:
  - name: hourly   # often
    do: snapshot
    schedule: 0 * * * *
    keep: {hourly: 24, daily: 7}
  - name: nightly
    do: backup
    repository: vault
    schedule: 30 22 * * *
    window: 22:00-06:00
    jitter: 30m
    keep: {daily: 14, monthly: 12}
"""


def step(**changes: object) -> str:
    whole = {"name": "a", "do": "snapshot", "schedule": "0 * * * *", "keep": {"last": 3}} | changes
    given = json.dumps({key: value for key, value in whole.items() if value is not None})
    return f"name: p\nassets: [{{}}]\nsteps:\n  - {given}\n"


WEEKLY = step() + (
    '  - {"name": "b", "do": "drill", "schedule": "0 3 * * 0", "repository": "vault", '
    '"files": "all", "check": "fsck.sh"}\n'
)


def told(text: str) -> list[str]:
    return [str(mistake) for mistake in read_policies(text)[1]]


def test_a_policy_is_read_with_its_text() -> None:
    second = GOOD.replace("projects", "homes").replace("# What people work on\n", "# Homes\n")
    written, mistakes = read_policies(f"{GOOD}---   # another\n{second}")
    assert mistakes == []
    assert [(one.policy.name, one.text) for one in written] == [("projects", GOOD), ("homes", second)]
    policy = written[0].policy
    assert (policy.blackout, policy.rpo) == ([date(2026, 12, 24)], timedelta(hours=2))
    nightly = policy.steps[1]
    assert nightly.window is not None
    assert (nightly.window.begin.hour, nightly.window.end.hour, nightly.jitter) == (22, 6, timedelta(minutes=30))


def test_it_says_the_same_as_json() -> None:
    (written,), _ = read_policies(GOOD)
    as_json = written.policy.model_dump_json()
    assert Policy.model_validate_json(as_json) == written.policy
    assert read_policies(as_json)[0][0].policy == written.policy
    judge = jsonschema_rs.validator_for(schema())
    assert judge.is_valid(json.loads(as_json))
    assert judge.is_valid(
        yaml.safe_load(GOOD.replace("[2026-12-24]", '["2026-12-24"]').replace("22:00-06:00", '"22:00-06:00"'))
    )
    assert not judge.is_valid(json.loads(as_json) | {"assets": []})


@pytest.mark.parametrize(
    ("system", "kind", "name", "labels", "held"),
    [
        ("files1", AssetKind.SHARE, "home", {"env": "prod", "x": "y"}, True),
        ("files1", AssetKind.SHARE, "scratch-1", {"env": "prod"}, False),
        ("files1", AssetKind.SHARE, "home", {"env": "test"}, False),
        ("files1", AssetKind.SHARE, "home", {}, False),
        ("files1", AssetKind.VOLUME, "home", {"env": "prod"}, False),
        ("other", AssetKind.SHARE, "home", {"env": "prod"}, False),
    ],
)
def test_which_assets(system: str, kind: AssetKind, name: str, labels: dict[str, str], held: bool) -> None:
    (written,), _ = read_policies(GOOD)
    assert written.policy.holds(system, kind, name, labels) is held


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = GOOD.replace("Zurich", "Zuerich").replace("rpo: 2h", "rpo: 2").replace("do: snapshot", "do: snap")
    text = text.replace("keep: {daily: 14, monthly: 12}", "keep: {dayly: 14}").replace("timezone", "time_zone", 0)
    assert [line.split(":")[0:2] for line in told(text)] == [
        ["line 9", " timezone"],
        ["line 10", " rpo"],
        ["line 14", " steps.0.do"],
        ["line 23", " steps.1.keep.dayly"],
    ]
    assert "do you mean 'daily'?" in told(text)[3]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "there is no policy in it"),
        ("# nothing\n---\n", 1, "there is no policy in it"),
        ("- a\n", 1, "valid dictionary"),
        ("name: a\nname: b\n", 2, "'name' is there twice"),
        ("name: [\n", 2, "this is no YAML"),
        ("name: !!python/object:os.system x\n", 1, "is not for policies"),
        ("a: &a [*a]\n", 1, "nested too deeply"),
        ("? [a, b]\n: c\n", 1, "a key must be a text"),
        ("name: \0\n", 1, "this is no YAML"),
        ("[" * 5000, 1, "nested too deeply"),
        (GOOD.replace("name: projects", "name: Projects"), 2, "a name has lower-case letters"),
        (GOOD.replace("assets:", "asset:"), 3, "do you mean 'assets'?"),
        (f"{GOOD}---\n{GOOD}", 26, "is in line 2 already"),
        (step(keep={}), 4, "this keeps nothing"),
        (step(keep={"last": 0}), 4, "greater than or equal to 1"),
        (step(keep={"forever": True, "last": 3}), 4, "needs no other rule"),
        (step(keep=None), 4, "a snapshot needs a rule of what to keep"),
        (step(schedule="0 0 30 2 *"), 4, "no cron expression"),
        (step(schedule="hourly"), 4, "no cron expression"),
        (step(do="backup"), 4, "a backup needs a repository"),
        (step(repository="vault"), 4, "a snapshot has no repository"),
        (step(do="drill", repository="vault"), 4, "a drill has no rule of what to keep (`keep`): take `keep` away"),
        (step(do="drill", keep=None), 4, "a drill needs a repository"),
        (step(do="verify", keep=None, repository="vault", files=3), 4, "a verify has no files to restore"),
        (step(do="diff", keep=None, repository="vault"), 4, "a diff has no repository"),
        (step(do="diff", keep=None, quiesce=True), 4, "a diff has no asset to hold still"),
        (step(data="all"), 4, "a snapshot has no data to read"),
        (step(do="drill", keep=None, repository="vault", files=0), 4, "or all"),
        (step(do="drill", keep=None, repository="vault", files=True), 4, "or all"),
        (step(do="drill", keep=None, repository="vault", files="some"), 4, "or all"),
        (step(do="drill", keep=None, repository="vault", bytes="1X"), 4, "a number of bytes"),
        (step(do="drill", keep=None, repository="vault", files="all", bytes="1G"), 4, "all files are restored"),
        (step(do="drill", keep=None, repository="vault", check="../x"), 4, "without a path"),
        (step(before="../x"), 4, "without a path"),
        (step(after="a b"), 4, "without a path"),
        (step(before="x", program_seconds=0), 4, "greater than or equal to 1"),
        (step(program_seconds=30), 4, "is for programs: name one"),
        (step(do="diff", keep=None, before="x"), 4, "a diff has no program before a snapshot"),
        (step(jitter="13h"), 4, "at most 12h"),
        (step(jitter=True), 4, "a number with a unit"),
        (step(window="25:00-26:00"), 4, "two times"),
        (step(window="22:00-22:00"), 4, "two times"),
        (step() + '  - {"name": "a", "do": "snapshot", "schedule": "0 1 * * *", "keep": {"last": 1}}\n', 1, "named a"),
        ("exclude: [{}]\n" + step(), 1, "excludes everything"),
    ],
)  # fmt: skip
def test_what_is_wrong(text: str, line: int, words: str) -> None:
    _, mistakes = read_policies(text)
    assert any(mistake.is_error and mistake.line == line and words in mistake.message for mistake in mistakes), mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (step().replace("assets", "rpo: 30m\nassets"), "30m is promised, but 'a' leaves up to 1h between two"),
        (step(schedule="0 0 * * *", keep={"hourly": 24}), "'a' comes less often than that"),
        (step(before="stop"), "no program goes on afterwards with what 'stop' has stopped"),
        (step().replace("assets", "prove_every: 7d\nassets"), "7d is promised, but no step drills"),
        (WEEKLY.replace("assets", "prove_every: 6d\nassets"), "6d is promised, but 'b' leaves up to 7d between two"),
    ],
)
def test_what_is_hardly_meant(text: str, words: str) -> None:
    (_,), (mistake,) = read_policies(text)
    assert not mistake.is_error
    assert words in mistake.message


def test_steps_that_make_nothing_are_read() -> None:
    (written,), mistakes = read_policies(WEEKLY.replace("assets", "rpo: 2h\nprove_every: 8d\nassets"))
    assert mistakes == [], "that the drill comes once a week does not concern the rpo"
    drill = written.policy.steps[1]
    assert (drill.files, drill.bytes, drill.check, drill.keep) == ("all", None, "fsck.sh", None)
    assert list(written.policy.keeping) == ["a"]
    again = Policy.model_validate(written.policy.model_dump(mode="json"))
    assert again == written.policy
    text = WEEKLY.replace('"files": "all"', '"files": 5, "bytes": "10M"')
    (some,), _ = read_policies(text)
    assert (some.policy.steps[1].files, some.policy.steps[1].bytes) == (5, 10 << 20)
    assert Policy.model_validate(some.policy.model_dump(mode="json")) == some.policy
    validator = jsonschema_rs.validator_for(schema())
    base: dict[str, object] = {"name": "b", "do": "drill", "schedule": "0 3 * * 0", "repository": "vault"}
    right: list[dict[str, object]] = [
        {"files": "all"},
        {"files": 5, "bytes": "10M"},
        {"bytes": 5000},
        {"check": "fsck"},
    ]
    wrong: list[dict[str, object]] = [{"files": "some"}, {"files": 0}, {"bytes": "10X"}, {"check": "a/b"}]
    for more in right + wrong:
        document = {"name": "p", "assets": [{}], "steps": [base | more]}
        assert validator.is_valid(document) is (more in right), more


def test_steps_name_programs() -> None:
    (written,), mistakes = read_policies(step(before="stop", after="go-on", program_seconds=5))
    assert (mistakes, written.policy.programs) == ([], ["stop", "go-on"])
    (drills,), _ = read_policies(WEEKLY)
    assert drills.policy.programs == ["fsck.sh"]


def test_surprises_of_yaml_are_none() -> None:
    (written,), _ = read_policies(step().replace("assets", "comment: no\nassets"))
    assert written.policy.comment == "no"


@given(st.text() | st.text(alphabet="abc:-[]{}&*!|>'\"#\n ?,%@`\t"))
@settings(max_examples=150, deadline=None)
def test_nothing_that_is_written_breaks_it(text: str) -> None:
    written, mistakes = read_policies(text)
    assert written or any(mistake.is_error for mistake in mistakes)
    assert all(1 <= mistake.line <= text.count("\n") + 2 for mistake in mistakes)
