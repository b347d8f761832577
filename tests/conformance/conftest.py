"""Our own plug-ins pass the suite on simulators, which can do everything: a skipped test is a failed one."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

# The targets are modules beside the tests; `--import-mode=importlib` leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"Nothing is skipped here, but: {report.longrepr}"
    return report
