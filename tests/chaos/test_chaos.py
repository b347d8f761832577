"""kill -9 at random moments: no operation is lost, none is done twice, nothing is left that nobody knows.

The long form is `make chaos`.
"""

from __future__ import annotations

import random

import pytest
from tests.chaos.plan import Options, Store
from tests.chaos.report import summary
from tests.chaos.run import run


@pytest.mark.parametrize(("store", "kills"), [("sqlite", 10), ("postgresql", 20)])
def test_nothing_is_lost_and_nothing_is_done_twice(store: Store, kills: int) -> None:
    outcome = run(Options(kills=kills, seed=random.randrange(2**32), store=store, workers=2, clients=4))
    told = summary(outcome)
    print(told)
    assert outcome.verdict.passed, told
    assert not outcome.verdict.not_checked, told
    assert outcome.kills.count == kills
    assert outcome.kills.hits > kills / 2, "it was killed while nothing was under way"
