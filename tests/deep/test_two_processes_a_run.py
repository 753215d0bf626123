"""Pools that leave the command to Prefect: a run is then two processes, and both end with the publication."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from local_stack.engine import Engine
from local_stack.stack import Stack, StackOptions, local_stack
from local_stack.toolchain import Toolchain
from tests.support.built_sources import SLOW, cancel_in_mid_build, kill_in_mid_build, source_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers")


@pytest.fixture(scope="module")
def plain_stack(
    engine: Engine,
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack whose pools do not know the Python of their workers."""
    with ExitStack() as block:
        with or_skip():
            folder = tmp_path_factory.mktemp("plain")
            started = block.enter_context(
                local_stack(
                    folder, StackOptions(engine=engine, toolchain=toolchain, isolated=True, worker_python=False)
                )
            )
        yield started


def test_cancelling_a_publication_ends_its_branches_and_what_they_build(plain_stack: Stack, tmp_path: Path) -> None:
    slow = source_of(plain_stack, tmp_path, "cancel", SLOW, platforms=["linux/amd64"], build_args={"PAUSE": "614"})
    cancel_in_mid_build(plain_stack, slow, 614)


def test_a_publication_that_is_killed_takes_its_branches_along(plain_stack: Stack, tmp_path: Path) -> None:
    slow = source_of(plain_stack, tmp_path, "kill", SLOW, platforms=["linux/amd64"], build_args={"PAUSE": "615"})
    kill_in_mid_build(plain_stack, slow, 615)
