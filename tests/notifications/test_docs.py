"""What the documentation says of notifications is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.notifications.conftest import delivery
from tests.support.hooks import Hooks

from snapkeep.model.notifications import MEANINGS, Event
from snapkeep.notifications import webhook
from snapkeep.notifications.message import Target

PAGE = (Path(__file__).parents[2] / "docs/how-to/notifications.md").read_text()


def test_each_event_is_described() -> None:
    rows = re.findall(r"^\| `([a-z.]+)` \| (.*?) \| (.*?) ?\|$", PAGE, re.MULTILINE)
    assert rows == [(event.value, *MEANINGS[event]) for event in Event]


async def test_the_lines_that_verify_a_signature_do() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    is_genuine: Callable[..., bool] = names["is_genuine"]
    secret = webhook.new_secret()
    with Hooks().running() as hooks:
        await webhook.send(Target({"url": hooks.url, "secret": secret}), delivery(), datetime.now(UTC))
    (got,) = hooks.got
    assert is_genuine(got.headers, got.body, secret)
    assert not is_genuine(got.headers, got.body + b" ", secret)
    assert not is_genuine(got.headers, got.body, webhook.new_secret())
    old = got.headers | {"webhook-timestamp": "1700000000"}
    assert not is_genuine(old, got.body, secret)
