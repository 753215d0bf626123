"""The local stack on PostgreSQL: what is queued all ends, and the server keeps nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from local_stack.stack import Stack, StackOptions, local_stack
from local_stack.toolchain import Toolchain
from tests.support.publications import ask
from tests.support.queued import publish_all, tiny_images

pytestmark = pytest.mark.timeout(1200)

QUEUED = 6
"""What the gate can afford; `python -m benchmarks queue` queues a hundred."""


@pytest.fixture(scope="module")
def on_postgres(
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack whose Prefect server keeps its state in PostgreSQL; two runs of each pool at once."""
    with ExitStack() as block:
        with or_skip():
            limits = dict.fromkeys(("soci-control", "soci-amd64", "soci-arm64"), 2)
            folder = tmp_path_factory.mktemp("postgres-stack")
            started = block.enter_context(
                local_stack(folder, StackOptions(toolchain=toolchain, database="postgres", limits=limits))
            )
        yield started


def test_all_queued_publications_end_well_and_none_is_lost(on_postgres: Stack, tmp_path: Path) -> None:
    with tiny_images(tmp_path / "images") as prebuilt:
        source = on_postgres.git.serve_snapshot(tmp_path / "images", "source")
        parameters = {"source": source.url, "builder": "prebuilt", "prebuilt": prebuilt}
        queued = publish_all(on_postgres, QUEUED, parameters, seconds=900)
    assert dict(queued.states) == {"COMPLETED": QUEUED}
    assert dict(queued.branches) == {"COMPLETED": 2 * QUEUED}
    assert queued.tagged == QUEUED
    assert all(seconds > 0 for seconds in queued.cpu.values())


def test_the_server_keeps_nothing_in_sqlite(on_postgres: Stack) -> None:
    assert ask(on_postgres, "/work_pools/soci-control")["name"] == "soci-control"
    assert not list((on_postgres.folder / "prefect").rglob("*.db"))
