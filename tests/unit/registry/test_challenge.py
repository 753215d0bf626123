import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.registry.challenge import Challenge, parse_challenges


def test_a_bearer_challenge_is_read_with_commas_inside_its_scope() -> None:
    header = 'Bearer realm="https://auth.example.com/token",service="r.example.com",scope="repository:a/b:pull,push"'
    assert parse_challenges(header) == (
        Challenge(
            "bearer",
            {
                "realm": "https://auth.example.com/token",
                "service": "r.example.com",
                "scope": "repository:a/b:pull,push",
            },
        ),
    )


def test_several_challenges_in_one_header_are_told_apart() -> None:
    header = 'Negotiate, Basic realm="x, \\"y\\"", BEARER Realm=https, error=insufficient_scope'
    assert parse_challenges(header) == (
        Challenge("negotiate"),
        Challenge("basic", {"realm": 'x, "y"'}),
        Challenge("bearer", {"realm": "https", "error": "insufficient_scope"}),
    )


def test_an_empty_header_holds_no_challenge() -> None:
    assert parse_challenges("") == ()


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=200))
def test_any_header_is_read_without_an_error(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    "header",
    [
        "Bearer realm=https://auth.example.com/token,service=r",
        "Bearer realm='https://auth.example.com/token', service='r'",
        'Bearer realm="https://auth.example.com/token";service="r"',
        'Bearer realm="https://auth.example.com/token" service="r"',
        'Bearer  Realm = "https://auth.example.com/token" , Service = "r" ,,',
        'Basic realm="x", Bearer realm="https://auth.example.com/token",service="r"',
        'NTLM TlRMTVNT=, Bearer realm="https://auth.example.com/token",service="r"',
        '"not, a challenge", Bearer realm="https://auth.example.com/token",service="r"',
    ],
)
def test_odd_quotes_and_separators_are_read(header: str) -> None:
    bearer = Challenge("bearer", {"realm": "https://auth.example.com/token", "service": "r"})
    assert parse_challenges(header)[-1] == bearer


@pytest.mark.parametrize("part", [",", '"', 'a="', "a='", "a b ", 'x "', "; "])
def test_a_hostile_header_is_read_in_no_time(part: str) -> None:
    began = time.process_time()
    parse_challenges(part * 8192)
    assert time.process_time() - began < 1
