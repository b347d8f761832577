"""Our own plug-ins pass the suite, on targets that can do everything: a skipped test is a failed one.

Only what a target declares to have no meaning for its kind of system may be skipped, for exactly that reason.
"""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from snapkeep.conformance import INAPPLICABLE, Target

# The targets are modules beside the tests; `--import-mode=importlib` leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and not _is_declared(item, report):
        report.outcome = "failed"
        report.longrepr = f"Nothing is skipped here, but: {report.longrepr}"
    return report


def _is_declared(item: pytest.Item, report: pytest.TestReport) -> bool:
    target = getattr(item, "funcargs", {}).get("target")
    if not isinstance(target, Target) or not isinstance(report.longrepr, tuple):
        return False
    reasons = {f"Skipped: {INAPPLICABLE}{what} ({reason})" for what, reason in target.inapplicable.items()}
    return report.longrepr[2] in reasons
