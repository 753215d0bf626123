"""Where Prefect is and how to sign in to it, as Prefect's own variables say."""

from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectUnavailable
from tests.support.certificates import certificate
from tests.support.webhook import Recorded, loopback


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "pnu_1"}, "Bearer pnu_1"),
        ({"PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
        ({"PREFECT_API_KEY": "pnu_1", "PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
    ],
    ids=["nobody", "key", "auth-string", "both"],
)
def test_the_credentials_of_the_environment_are_those_that_prefect_would_take(
    given: dict[str, str], header: str | None
) -> None:
    seen: list[str | None] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        seen.append(request.headers.get("authorization"))
        return 200, []

    with loopback(answer) as url, PrefectApi.from_environment({"PREFECT_API_URL": f"{url}/api"} | given) as api:
        assert api.online_workers("soci-amd64") == ()
    assert seen == [header]


def test_without_an_address_in_the_environment_nothing_is_asked() -> None:
    with pytest.raises(InvalidInput, match="PREFECT_API_URL is not set"):
        PrefectApi.from_environment({})


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:42o0/api", "http://127.0.0.1:99999/api", "http://[::1", f"http://{'a' * 64}.example/api"],
    ids=["letter", "too-large", "bracket", "long-name"],
)
def test_what_is_no_address_is_invalid_input_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PrefectApi.from_environment({"PREFECT_API_URL": url.replace("://", "://user:do-not-show@")})
    assert caught.value.reason == "PREFECT_API_URL is not a valid URL"
    assert "http://127.0.0.1:4200/api" in str(caught.value.advice)
    assert "do-not-show" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/api", "localhost:4200/api", "127.0.0.1:4200/api", "http:///api"])
def test_an_address_that_is_not_of_http_is_invalid_input(url: str) -> None:
    with pytest.raises(InvalidInput, match="start with http:// or https://"):
        PrefectApi(url)


@pytest.mark.parametrize("variable", ["PREFECT_API_SSL_CERT_FILE", "SSL_CERT_FILE"])
def test_an_authority_of_ones_own_is_trusted_as_by_prefect(variable: str, tmp_path: Path) -> None:
    own = certificate(tmp_path)
    with loopback(lambda _: (200, []), own=own) as url:
        given = {"PREFECT_API_URL": f"{url}/api"}
        with PrefectApi.from_environment(given | {variable: str(own.certificate)}, deadline_s=0) as api:
            assert api.online_workers("soci-amd64") == ()
        with (
            PrefectApi.from_environment(given, deadline_s=0) as api,
            pytest.raises(PrefectUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            api.online_workers("soci-amd64")


def test_the_environment_of_the_process_says_whom_to_trust_where_no_other_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = certificate(tmp_path)
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(own.certificate))
    with loopback(lambda _: (200, []), own=own) as url, PrefectApi(f"{url}/api", deadline_s=0) as api:
        assert api.online_workers("soci-amd64") == ()


@pytest.mark.parametrize(("value", "verified"), [("true", False), ("1", False), ("True", False), ("false", True)])
def test_no_certificate_is_verified_where_prefect_would_not(value: str, verified: bool, tmp_path: Path) -> None:
    with loopback(lambda _: (200, []), own=certificate(tmp_path)) as url:
        given = {"PREFECT_API_URL": f"{url}/api", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": value}
        with PrefectApi.from_environment(given, deadline_s=0) as api:
            if verified:
                with pytest.raises(PrefectUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                    api.online_workers("soci-amd64")
            else:
                assert api.online_workers("soci-amd64") == ()


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "other"])
def test_a_file_that_holds_no_certificates_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    given = {"PREFECT_API_SSL_CERT_FILE": str(file)}
    with pytest.raises(InvalidInput, match=str(file)) as caught:
        PrefectApi.from_environment(given | {"PREFECT_API_URL": "https://127.0.0.1:1/api"})
    assert "None" not in caught.value.reason
    assert "PREFECT_API_SSL_CERT_FILE" in str(caught.value.advice)
    # Without TLS there is nothing to verify.
    PrefectApi.from_environment(given | {"PREFECT_API_URL": "http://127.0.0.1:1/api"}).close()
