"""Answers of another shape than Prefect's."""

from typing import Any

import pytest

from soci_pipeline.prefect_rest.errors import PrefectUnavailable, expected_shape
from soci_pipeline.prefect_setup.three_way import merge


def test_values_that_are_nested_too_deeply_are_an_answer_of_another_shape() -> None:
    def nested(innermost: int) -> Any:
        value: Any = innermost
        for _ in range(5000):
            value = {"a": value}
        return value

    with pytest.raises(PrefectUnavailable), expected_shape():
        merge({}, nested(1), nested(2))
