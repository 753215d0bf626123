"""A client of the embedded registry that speaks plain HTTP to it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.wire import wire


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    with wire(tmp_path) as client:
        yield client
