"""Cron expressions and time zones: what is accepted, and what an error says."""

import pytest

from soci_pipeline.publications.schedule import check_cron, check_timezone


@pytest.mark.parametrize(
    "text",
    ["17 3 * * *", "*/15 0-6,22 1-15/2 jan,MAR mon-fri", "0 0 29 2 *", "0 0 31 2 1", "5/10 * * * 7", "0  4 * *  0"],
)
def test_a_cron_expression_of_five_fields_is_accepted(text: str) -> None:
    assert check_cron(text) == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it has 0 fields"),
        ("@daily", "it has 1 fields"),
        ("0 0 * * * *", "it has 6 fields"),
        ("60 0 * * *", "minute: '60' is not an integer from 0 to 59"),
        ("0 24 * * *", "hour: '24'"),
        ("0 0 0 * *", "day of the month: '0'"),
        ("0 0 * 13 *", "month: '13'"),
        ("0 0 * * 8", "day of the week: '8'"),
        ("0 0 * * funday", "day of the week: 'funday'"),
        ("0 5-3 * * *", "hour: '5-3' ends before it starts"),
        ("*/0 * * * *", "minute: '0'"),
        ("*/ * * * *", "minute: ''"),
        ("1, * * * *", "minute: ''"),
        ("-1 * * * *", "minute: ''"),
        ("² * * * *", "not a cron expression"),
        ("0 0 30 2 *", "no such month has a day 30"),
        ("0 0 31 4,6 *", "no such month has a day 31"),
        ("H R * * *", "minute: 'H'"),
    ],
)
def test_another_expression_is_rejected_with_the_field_that_is_wrong(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=r"cron|never matches") as caught:
        check_cron(text)
    assert fault in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_time_zone_is_one_of_the_database() -> None:
    assert check_timezone("Europe/Berlin") == "Europe/Berlin"
    assert check_timezone("UTC") == "UTC"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("Europe", "not an IANA time zone"),
        ("/etc/passwd", "not an IANA time zone"),
        ("../../etc/passwd", "not an IANA time zone"),
        ("", "not an IANA time zone"),
        ("+02:00", "not an IANA time zone"),
    ],
)
def test_another_time_zone_is_rejected_with_a_similar_name(name: str, fault: str) -> None:
    with pytest.raises(ValueError, match="not an IANA time zone") as caught:
        check_timezone(name)
    assert fault in str(caught.value)
