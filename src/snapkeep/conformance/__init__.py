"""The conformance suite: what every plug-in promises, as tests.

A plug-in's author, or somebody with real hardware, writes one test file:

    import pytest
    from snapkeep.conformance import Target
    from snapkeep.conformance.suite import *  # noqa: F403 - every test of the suite

    class MyTarget(Target): ...               # how to reach the system, and what can be done to it

    @pytest.fixture
    def target() -> MyTarget: ...

and runs `pytest`. It needs pytest and pytest-asyncio, in any mode. See README.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

# Before the first import of a suite: a failed `assert` in it then shows its values, as in any test file.
pytest.register_assert_rewrite(
    *(f"{__name__}.{file.stem}" for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")
)

from snapkeep.conformance.target import INAPPLICABLE, Circumstance, Fault, Step, Target, cannot  # noqa: E402

__all__ = ["INAPPLICABLE", "Circumstance", "Fault", "Step", "Target", "cannot"]
