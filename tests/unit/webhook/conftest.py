"""An outbox whose running time stands still until a test moves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.webhook.outbox import Outbox
from tests.support.outboxes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "box" / "events.sqlite3", clock=clock) as opened:
        yield opened
