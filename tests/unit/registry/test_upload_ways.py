"""How a blob goes up, by what a registry has rejected: without a registry."""

import pytest

from soci_pipeline.registry.upload_ways import RegistryAccess, UploadWays, part_size_of

MIB = 1 << 20


@pytest.mark.parametrize("size", [257 * MIB, 300 * MIB, 1024 * MIB, 10_240 * MIB])
def test_a_rejected_part_is_at_most_a_quarter_of_its_blob(size: int) -> None:
    assert part_size_of(size, 256 * MIB) <= size // 4 + 1
    assert part_size_of(size, 256 * MIB) <= 256 * MIB


def test_a_part_is_not_smaller_than_ecr_takes_it_unless_the_setting_says_so() -> None:
    assert part_size_of(11 * MIB, 10 * MIB) == 5 * MIB
    assert part_size_of(11 * MIB, 4 * MIB) == 4 * MIB


def test_a_large_blob_goes_up_in_parts_then_at_once_then_in_small_parts() -> None:
    ways = UploadWays(256 * MIB)
    size = 400 * MIB
    assert ways.choose(size) == RegistryAccess(100 * MIB)
    ways.reject_parts(100 * MIB)
    assert ways.choose(size) == RegistryAccess(None)
    ways.reject_whole(size)
    assert ways.choose(size) == RegistryAccess(4 * MIB)
    ways.reject_parts(4 * MIB)
    assert ways.choose(size) == RegistryAccess(MIB)
    ways.reject_parts(MIB)
    assert ways.choose(size) is None


def test_what_is_smaller_than_a_rejected_blob_still_goes_up_at_once() -> None:
    ways = UploadWays(256 * MIB)
    ways.reject_whole(200 * MIB)
    assert ways.choose(199 * MIB) == RegistryAccess(None)
    assert ways.choose(200 * MIB) == RegistryAccess(4 * MIB)


def test_a_registry_that_takes_parts_only_gets_parts_of_every_blob() -> None:
    ways = UploadWays(256 * MIB)
    ways.reject_whole()
    assert ways.choose(10) == RegistryAccess(4 * MIB)


def test_a_registry_that_takes_no_parts_gets_everything_at_once() -> None:
    ways = UploadWays(256 * MIB)
    ways.reject_parts()
    assert ways.choose(10_000 * MIB) == RegistryAccess(None)
    ways.reject_whole(10_000 * MIB)
    assert ways.choose(10_000 * MIB) is None
