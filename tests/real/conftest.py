"""What several modules of the real tier share, beyond the engines and registries of `tests/conftest.py`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from local_stack.toolchain import Toolchain
from tests.support.snapshotter import PrivateContainerd, private_containerd


@pytest.fixture(scope="module")
def containerd(
    toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Iterator[PrivateContainerd]:
    """A containerd of the module's own, for `ctr` and `soci`."""
    with ExitStack() as stack:
        with or_skip():
            started = stack.enter_context(private_containerd(tmp_path_factory.mktemp("containerd"), toolchain))
        yield started
