"""What the network says, as errors of a registry."""

import httpx
import pytest

from soci_pipeline.registry.errors import (
    RegistryUnreachable,
)
from soci_pipeline.registry.transport import network_errors


@pytest.mark.parametrize(("host", "named"), [("registry-1.docker.io", True), ("registry.example.com", False)])
def test_docker_hub_is_named_only_where_it_was_asked(host: str, named: bool) -> None:
    with pytest.raises(RegistryUnreachable) as caught, network_errors("GET", httpx.URL(f"https://{host}/v2/")):
        raise httpx.ConnectError("[Errno 111] Connection refused")
    assert caught.value.reason == f"GET https://{host}/v2/: Connection refused"
    assert ("means Docker Hub" in str(caught.value)) is named


@pytest.mark.parametrize(
    ("url", "error", "suggested"),
    [
        ("http://127.0.0.1:5000/v2/", httpx.RemoteProtocolError, True),
        ("http://127.0.0.1:5000/v2/", httpx.ConnectError, False),
        ("https://127.0.0.1:5000/v2/", httpx.RemoteProtocolError, False),
        ("http://registry.example.com/v2/", httpx.RemoteProtocolError, False),
    ],
)
def test_tls_is_suggested_where_a_registry_on_loopback_does_not_speak_http(
    url: str, error: type[httpx.TransportError], suggested: bool
) -> None:
    with pytest.raises(RegistryUnreachable) as caught, network_errors("GET", httpx.URL(url)):
        raise error("no HTTP")
    assert ("set --ca-file" in str(caught.value)) is suggested


@pytest.mark.parametrize(
    ("error", "words", "temporary"),
    [
        (httpx.ReadTimeout("x"), "no answer before the timeout (ReadTimeout)", True),
        (httpx.LocalProtocolError("Bearer s3cret"), "the request is not valid HTTP", True),
        (httpx.ReadError(""), "ReadError", True),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "Name or service not known", True),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] x"), "[SSL: CERTIFICATE_VERIFY_FAILED] x", False),
        (httpx.ConnectError("x" * 1000), "x" * 200, True),
    ],
)
def test_what_the_network_says_is_short_and_temporary_unless_tls_was_refused(
    error: httpx.HTTPError, words: str, temporary: bool
) -> None:
    url = httpx.URL("https://registry.example.com/v2/?signature=s3cret")
    with pytest.raises(RegistryUnreachable) as caught, network_errors("GET", url):
        raise error
    assert caught.value.reason.endswith(f": {words}")
    assert caught.value.temporary is temporary
    assert "s3cret" not in caught.value.reason
