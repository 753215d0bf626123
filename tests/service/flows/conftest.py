"""Every flow of this folder runs in the Prefect server of the run."""

import pytest

from local_stack.prefect_server import PrefectServer


@pytest.fixture(scope="session", autouse=True)
def in_prefect(prefect: PrefectServer) -> None:
    """Flows and clients of these tests speak to it."""
