"""Numbers as people write them on a command line."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.commands.numbers import quantity, size, whole


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from([("", 1), ("KiB", 1024), ("MiB", 1024**2)]))
def test_a_size_is_bytes_or_has_a_unit(number: int, unit: tuple[str, int]) -> None:
    name, factor = unit
    assert size(least=0)(f"{number}{name}") == number * factor


@pytest.mark.parametrize("text", ["", "-1", "0", "4 MiB", "4MB", "4m", "1e6", "0x10", "٣", "1" * 5000])
def test_a_size_that_cannot_be_meant_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size of 1 or more bytes, such as 4194304 or 4MiB"):
        size(least=1)(text)


def test_a_size_beyond_its_range_is_refused_with_the_range() -> None:
    take = size(least=1, most=1 << 40)
    assert take("1024GiB") == 1 << 40
    with pytest.raises(click.BadParameter, match="'1025GiB' is not a size from 1 to 1,099,511,627,776 bytes, such as"):
        take("1025GiB")


@given(st.text(max_size=30))
def test_whatever_is_no_number_is_refused(text: str) -> None:
    try:
        taken = whole(least=2)(text)
    except click.BadParameter:
        return
    assert taken >= 2
    assert text.strip("0123456789") == ""


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0.9", "3601", "soon"])
def test_a_quantity_out_of_its_range_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a number of seconds from 1 to 3,600"):
        quantity("seconds", least=1, most=3600)(text)


def test_both_ends_of_a_range_are_taken() -> None:
    take = quantity("seconds", least=1, most=3600)
    assert [take("1"), take("2.5"), take("3600")] == [1, 2.5, 3600]
