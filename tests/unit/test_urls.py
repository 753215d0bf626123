"""URLs that a server gives, and URLs as they may be shown."""

import httpx
import pytest

from soci_pipeline.urls import address, host_and_port, over_tls, redacted

SERVER = httpx.URL("https://r.example.com:8443/v2/")


def test_neither_a_login_nor_a_query_is_shown() -> None:
    assert redacted("https://user:pw@h:1/p?token=1#f") == "https://h:1/p"
    assert redacted("/v2/a?token=1") == "/v2/a"


@pytest.mark.parametrize("text", ["http://[::1", "http://h:99999/", "http://a%2Fb/", f"http://{'a' * 64}.example/"])
def test_a_text_that_no_connection_can_be_made_to_is_not_a_url(text: str) -> None:
    assert address(text, base=SERVER) is None


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ("http://r.example.com/token", "https://r.example.com:8443/token"),
        ("http://other.example.com/token", "http://other.example.com/token"),
        ("https://r.example.com/token", "https://r.example.com/token"),
    ],
    ids=["same-host", "another-host", "https"],
)
def test_only_an_http_url_of_the_server_itself_is_changed_to_https(given: str, corrected: str) -> None:
    assert str(over_tls(httpx.URL(given), SERVER)) == corrected


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
        ("https://user:secret@registry.example.com/v2/?q", "registry.example.com:443"),
        ("http://registry.example.com", "registry.example.com:80"),
        ("http://[::1]:5000/v2/", "[::1]:5000"),
        ("", ""),
        ("no url", ""),
    ],
)
def test_the_host_and_the_port_of_a_url_are_named_even_where_the_port_is_the_schemes(url: str, place: str) -> None:
    assert host_and_port(url) == place
