"""The header Retry-After."""

import pytest

from soci_pipeline.retry import retry_after_s


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("9" * 400, 86_400),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", 86_400),
    ],
)
def test_seconds_and_dates_are_read_and_bounded(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, now=60.0) == expected
