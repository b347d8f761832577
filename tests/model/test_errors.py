"""The error tree: stable, complete, and the same after a journey through JSON."""

from __future__ import annotations

import json

import pytest

from snapkeep.model.errors import ERRORS, RateLimited, SnapkeepError, Unavailable


def test_the_tree_is_small_and_its_numbers_are_unique() -> None:
    assert len(ERRORS) == 18  # sixteen, and the base for defects of our own
    exits = [error.exit_code for error in ERRORS.values()]
    assert len(set(exits)) == len(exits)
    assert all(0 < code < 128 and code != 17 for code in exits)
    assert all(400 <= error.http_status < 600 for error in ERRORS.values())


def test_only_what_passes_by_itself_is_retried() -> None:
    assert {code for code, error in ERRORS.items() if error.retryable} == {"unavailable", "rate_limited"}
    assert issubclass(RateLimited, Unavailable)


@pytest.mark.parametrize("code", ERRORS)
def test_every_error_says_what_to_do_and_survives_json(code: str) -> None:
    kind = ERRORS[code]
    assert kind.default_next_step.endswith(".")
    error = kind("what", next_step="do", vendor_code="7", vendor_message="why", needed=["x"])
    again = SnapkeepError.from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(again) is kind
    assert again.to_dict() == error.to_dict()
    assert str(error) == "what (7 why)"
    assert str(error.with_context("where")) == "where: what (7 why)"


def test_an_unknown_code_is_still_an_error() -> None:
    assert type(SnapkeepError.from_dict({"code": "of the future", "message": "m"})) is SnapkeepError
