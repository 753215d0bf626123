"""A publication by the library is killed at some steps and requests, and run again; the deep tier takes them all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.crashes import Shop, crash_shop, kill_after_steps, kill_at_requests

SAMPLE = 4


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with crash_shop(tmp_path) as made:
        yield made


@pytest.mark.first
def test_a_kill_after_any_step_leaves_nothing_that_the_next_run_does_not_mend(shop: Shop) -> None:
    kill_after_steps(shop, sample=SAMPLE)


@pytest.mark.parametrize("after_bytes", [None, 100], ids=["carried out", "in mid-upload"])
def test_a_kill_at_any_request_that_writes_leaves_nothing_that_the_next_run_does_not_mend(
    shop: Shop, after_bytes: int | None
) -> None:
    kill_at_requests(shop, after_bytes=after_bytes, sample=SAMPLE)
