"""Which tier must reach a module of the library."""

import pytest

from tests.module_coverage import owner


@pytest.mark.parametrize(
    ("module", "tier"),
    [
        ("registry/client.py", "unit"),
        ("aws/ecs.py", "service"),
        ("publish/join.py", "unit"),
        ("local_stack/ports.py", "unit"),
    ],
)
def test_the_tier_with_a_file_of_that_name_owns_a_module(module: str, tier: str) -> None:
    assert owner(module, {"unit": 1.0, "service": 99.0, "real": 100.0}) == tier


def test_of_several_tiers_with_a_file_of_that_name_the_one_that_reaches_most_owns_a_module() -> None:
    assert owner("prefect_setup/install.py", {"unit": 20.0, "service": 90.0, "real": 100.0}) == "service"


def test_a_module_without_a_file_of_tests_belongs_to_the_tier_that_reaches_most_of_it() -> None:
    assert owner("no/such/module.py", {"unit": 10.0, "service": 20.0, "real": 15.0}) == "service"
