"""`soci-pipeline setup` of this checkout, with servers that cannot be set up."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from tests.support.certificates import certificate
from tests.support.webhook import Recorded, loopback

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def prefect_without_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A server whose API is below /api and knows nothing; its address, and every path that was asked for."""
    asked: list[str] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        asked.append(request.path)
        sound = {"/api/health": (200, True), "/api/work_pools/filter": (200, [])}
        return sound.get(request.path, (404, {"detail": "Not Found"}))

    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(REPOSITORY))
    with loopback(answer) as url:
        yield url, asked


def test_an_address_that_lacks_api_is_named_with_the_right_one(
    prefect_without_blocks: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, asked = prefect_without_blocks
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert main(["setup"]) == ExitCode.INVALID_INPUT
    what, next_step, _ = capsys.readouterr().err.splitlines()
    assert what == f"soci-pipeline: a Prefect server answers at {url}, but its API is at {url}/api"
    assert f"Set PREFECT_API_URL to {url}/api" in next_step
    assert asked == ["/api/health"]


def test_a_block_that_prefect_does_not_have_is_to_be_made_first(
    prefect_without_blocks: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, asked = prefect_without_blocks
    monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
    assert main(["setup", "--notify-block", "slack-webhook/nope"]) == ExitCode.INVALID_INPUT
    what, next_step, _ = capsys.readouterr().err.splitlines()
    assert what == "soci-pipeline: the Prefect block slack-webhook/nope does not exist"
    assert "Create the block first" in next_step
    assert [path for path in asked if "work_pools" in path] == ["/api/work_pools/filter"]


def test_a_server_with_an_authority_of_its_own_and_csrf_protection_is_set_up_as_prefects_client_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: Recorded) -> tuple[int, Any]:
        if request.path.startswith("/api/csrf-token"):
            return 200, {"token": "t", "client": "c", "expiration": "2100-01-01T00:00:00Z"}
        if request.method == "POST":
            token = request.headers.get("prefect-csrf-token")
            return (200, []) if token == "t" else (403, {"detail": "Missing CSRF token."})
        return 404, {"detail": "Not Found"}

    own = certificate(tmp_path)
    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(REPOSITORY))
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", str(own.certificate))
    with loopback(answer, own=own) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        # It has no block: the server was reached, past its check of the token.
        assert main(["setup", "--notify-block", "slack-webhook/nope"]) == ExitCode.INVALID_INPUT
    assert capsys.readouterr().err.startswith("soci-pipeline: the Prefect block slack-webhook/nope does not exist")


@pytest.mark.parametrize(
    ("url", "status", "reason"),
    [
        ("", ExitCode.INVALID_INPUT, "PREFECT_API_URL is not set"),
        ("127.0.0.1:4200", ExitCode.INVALID_INPUT, "PREFECT_API_URL must start with http"),
        ("http://127.0.0.1:42o0/api", ExitCode.INVALID_INPUT, "PREFECT_API_URL is not a valid URL"),
        ("http://127.0.0.1:1/api", ExitCode.STACK, "no Prefect server answers at http://127.0.0.1:1/api"),
    ],
)
def test_a_server_that_cannot_be_asked_is_named_with_the_cause(
    url: str,
    status: ExitCode,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(REPOSITORY))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert main(["setup"]) == status
    said = capsys.readouterr().err
    assert said.startswith(f"soci-pipeline: {reason}")
    assert "http://127.0.0.1:4200/api" in said or "`prefect server start`" in said
    assert "Error:" not in said


def test_a_login_that_the_server_does_not_take_is_what_setup_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(REPOSITORY))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "u:do-not-show")
    with loopback(lambda _: (401, {"exception_message": "Unauthorized"})) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        assert main(["setup"]) == ExitCode.CREDENTIALS
    what, next_step, _ = capsys.readouterr().err.splitlines()
    assert what == f"soci-pipeline: the Prefect server at {url}/api rejects the login"
    assert "Correct PREFECT_API_AUTH_STRING" in next_step
    assert "do-not-show" not in what + next_step
