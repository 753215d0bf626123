"""One Prefect server for all tests of the flows: it takes a quarter of a minute to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from soci_pipeline.registry.client import RegistryClient
from tests.support.published import registry


@pytest.fixture(scope="session", autouse=True)
def prefect() -> Iterator[None]:
    """A temporary server and database, in which every flow of this folder runs."""
    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    """A registry on loopback that is empty, and a client for it."""
    with registry(tmp_path / "registry") as made:
        yield made
