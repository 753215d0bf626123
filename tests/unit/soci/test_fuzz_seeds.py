"""Each fuzz target with its seeds; `make fuzz` and the deep tier let the fuzzer look for more."""

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_seeds_of_a_target_pass(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)
