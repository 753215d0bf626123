"""The doctor's checks of one target, against registries that work and registries that do not."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from local_stack.ports import free_port
from soci_pipeline.cli import main
from soci_pipeline.commands.finding import Mark
from soci_pipeline.commands.target_diagnosis import LIMITS, Target
from soci_pipeline.errors import ExitCode
from soci_pipeline.publish.registries import connect
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.server import serving
from soci_pipeline.settings import Settings
from tests.support import deviations
from tests.support.registries import REPOSITORY, leftovers, push_image
from tests.support.strange import strange
from tests.support.tls_registry import tls_registry

Answer = dict[str, Any]
ORDER = ["name", "connection", "login", "pull", "push", "tags", "deletion"]


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The login of this machine for the registry of a test, by ``SOCI_PIPELINE_REGISTRY``."""
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "robot")
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", "opensesame")


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Answer]:
    """The exit status and the JSON; no secret of these tests is in any output."""
    status = main(["doctor", *arguments, "--json"])
    said = capsys.readouterr()
    assert "opensesame" not in said.out + said.err
    answer: Answer = json.loads(said.out)
    assert answer["ok"] == (status == ExitCode.OK)
    assert all(each["advice"] for each in answer["checks"] if each["mark"] != "ok")
    return status, answer


def marks(answer: Answer) -> dict[str, str]:
    return {each["name"]: each["mark"] for each in answer["checks"]}


def check(answer: Answer, name: str) -> dict[str, str]:
    found: dict[str, str] = next(each for each in answer["checks"] if each["name"] == name)
    return found


class NeedsLogin(deviations.Registry):
    """Takes the login of `log_in`, and lets it do what ``methods`` says."""

    def __init__(self, methods: frozenset[str]) -> None:
        super().__init__()
        self._methods = methods

    def special(self, request: Request, body: bytes) -> Response | None:
        expected = f"Basic {base64.b64encode(b'robot:opensesame').decode()}"
        if request.headers.get("authorization") != expected:
            refused = deviations.error(401, "UNAUTHORIZED")
            refused.headers["WWW-Authenticate"] = 'Basic realm="test"'
            return refused
        return None if request.method in self._methods else deviations.error(403, "DENIED")


class RejectsUploads(deviations.Registry):
    def special(self, request: Request, body: bytes) -> Response | None:
        is_upload = request.method == "POST" and "/blobs/uploads/" in request.url.path
        return deviations.error(405, "UNSUPPORTED", "this registry is read-only") if is_upload else None


class KeepsSessions(deviations.Registry):
    def special(self, request: Request, body: bytes) -> Response | None:
        is_cancelled = request.method == "DELETE" and "/blobs/uploads/" in request.url.path
        return deviations.error(405, "UNSUPPORTED") if is_cancelled else None


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "registry") as address:
        yield address


def test_a_registry_that_lets_this_machine_do_all_is_ok_and_keeps_nothing(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RegistryClient(address) as client:
        push_image(client, "v1")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())

    status, answer = doctor(capsys, f"{address}/{REPOSITORY}:v1")

    assert (status, answer["not_checked"]) == (ExitCode.OK, [])
    assert [each["name"] for each in answer["checks"]] == ORDER
    assert set(marks(answer).values()) == {"ok"}
    assert check(answer, "pull")["detail"].startswith("allowed: v1 is sha256:")
    assert check(answer, "push")["detail"] == "allowed: an upload was opened and cancelled"
    assert leftovers(tmp_path / "registry") == []
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_repository_that_does_not_exist_yet_is_a_warning(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = doctor(capsys, f"{address}/shop/new")
    assert (status, marks(answer)["pull"], marks(answer)["push"]) == (ExitCode.OK, "warn", "ok")
    assert check(answer, "pull")["detail"] == "the repository shop/new does not exist yet"
    assert check(answer, "push")["detail"].endswith("keeps the empty one")
    with RegistryClient(address) as client:
        assert client.tags.list("shop/new") == ()


def test_a_registry_that_takes_no_uploads_fails_and_the_checks_after_it_are_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with strange(RejectsUploads().answer) as address:
        status = main(["doctor", f"{address}/{REPOSITORY}"])
    said = capsys.readouterr().out
    assert status == ExitCode.REGISTRY_REFUSED
    assert "\nfail     push " in said
    assert "this registry is read-only" in said
    assert "\nok       deletion " in said


def test_a_session_that_cannot_be_cancelled_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with strange(KeepsSessions().answer) as address:
        status, answer = doctor(capsys, f"{address}/{REPOSITORY}")
    assert status == ExitCode.OK
    assert check(answer, "push")["detail"].endswith("the registry does not cancel it, so it expires by itself")


def test_a_registry_that_deletes_nothing_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with strange(deviations.DeletesNothing(405).answer) as address:
        status, answer = doctor(capsys, f"{address}/{REPOSITORY}")
    assert (status, marks(answer)["deletion"]) == (ExitCode.OK, "warn")
    assert "Enable deletion" in check(answer, "deletion")["advice"]


def test_without_a_login_that_the_registry_wants_nothing_more_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    with strange(NeedsLogin(frozenset()).answer) as address:
        status, answer = doctor(capsys, f"{address}/{REPOSITORY}")
    assert status == ExitCode.CREDENTIALS
    assert (marks(answer)["login"], answer["not_checked"]) == ("fail", ["pull", "push", "tags", "deletion"])
    assert "docker login" in check(answer, "login")["advice"]


def test_a_login_that_the_registry_does_not_take_is_named_with_the_variables(
    log_in: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "somebody")
    with strange(NeedsLogin(frozenset()).answer) as address:
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", address)
        status, answer = doctor(capsys, f"{address}/{REPOSITORY}")
    assert (status, marks(answer)["login"]) == (ExitCode.CREDENTIALS, "fail")
    assert "SOCI_PIPELINE_REGISTRY_PASSWORD" in check(answer, "login")["advice"]


def test_a_login_that_may_only_read_fails_at_push(
    log_in: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with strange(NeedsLogin(frozenset({"GET", "HEAD"})).answer) as address:
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", address)
        status, answer = doctor(capsys, f"{address}/{REPOSITORY}")
    assert status == ExitCode.CREDENTIALS
    found = marks(answer)
    assert (found["login"], found["pull"], found["push"], found["deletion"]) == ("ok", "ok", "fail", "warn")
    assert "lacks the permission to push on team/app" in check(answer, "push")["advice"]
    assert "Only prune requires it." in check(answer, "deletion")["advice"]


def test_a_name_that_does_not_resolve_ends_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = doctor(capsys, f"registry.invalid/{REPOSITORY}")
    assert (status, marks(answer), answer["not_checked"]) == (
        ExitCode.REGISTRY_UNREACHABLE,
        {"name": "fail"},
        ORDER[1:],
    )
    assert "registry.invalid does not resolve" in check(answer, "name")["detail"]


def test_a_name_of_idna_that_stands_for_nothing_ends_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = doctor(capsys, f"xn--a.invalid/{REPOSITORY}")
    assert (status, marks(answer)) == (ExitCode.REGISTRY_UNREACHABLE, {"name": "fail"})
    assert "xn--a.invalid does not resolve" in check(answer, "name")["detail"]


def test_a_port_that_nobody_listens_on_ends_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    status, answer = doctor(capsys, f"127.0.0.1:{port}/{REPOSITORY}")
    assert (status, marks(answer)) == (ExitCode.REGISTRY_UNREACHABLE, {"name": "ok", "connection": "fail"})
    assert check(answer, "connection")["detail"] == f"nothing answers at 127.0.0.1 port {port}: Connection refused"


def test_a_certificate_is_checked_against_the_authority_that_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tls_registry(tmp_path / "theirs", "registry.example.com") as other:
        unknown = other.ca_file
    with tls_registry(tmp_path / "tls", "registry.example.com") as registry:
        image = f"127.0.0.1:{registry.port}/{REPOSITORY}"
        good_status, good = doctor(capsys, image, "--ca-file", str(registry.ca_file))
        bad_status, bad = doctor(capsys, image, "--ca-file", str(unknown))
        assert main(["doctor", image]) == ExitCode.REGISTRY_UNREACHABLE
    assert good_status == ExitCode.OK
    assert check(good, "connection")["detail"].startswith("TLSv1.3, certificate valid until ")
    assert (bad_status, marks(bad)["connection"]) == (ExitCode.REGISTRY_UNREACHABLE, "fail")
    assert "certificate of 127.0.0.1 is not valid here" in check(bad, "connection")["detail"]
    assert "--ca-file" in check(bad, "connection")["advice"]


def test_a_registry_without_tls_is_named_where_tls_is_expected(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tls_registry(tmp_path / "tls", "registry.example.com") as registry:
        authority = registry.ca_file
    status, answer = doctor(capsys, f"{address}/{REPOSITORY}", "--ca-file", str(authority))
    assert (status, marks(answer)["connection"]) == (ExitCode.REGISTRY_UNREACHABLE, "fail")
    assert "does not answer with TLS" in check(answer, "connection")["detail"]
    assert "--plain-http" in check(answer, "connection")["advice"]


def test_a_registry_behind_a_proxy_is_left_to_the_proxy_whose_password_stays_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://robot:opensesame@127.0.0.1:{free_port()}")
    status, answer = doctor(capsys, f"registry.invalid/{REPOSITORY}")
    assert status == ExitCode.REGISTRY_UNREACHABLE
    assert marks(answer) == {"name": "ok", "connection": "ok", "login": "fail"}
    assert "proxy" in check(answer, "name")["detail"]


def test_what_is_not_a_reference_is_an_error_of_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "https://registry.example.com/app"]) == ExitCode.INVALID_INPUT
    assert "not a valid image reference" in capsys.readouterr().err


async def _endless(_: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(body())


async def _endless_token(request: Request) -> Response:
    if request.url.path == "/token":
        return await _endless(request)
    challenge = f'Bearer realm="{request.base_url}token",service="x"'
    return Response(status_code=401, headers={"WWW-Authenticate": challenge})


def _answering(status: int, name: str, value: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(status_code=status, headers={name: value})

    return answer


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (_endless, "returned more than the limit of 65536 bytes"),
        (_endless_token, "/token returned more than the limit of 1048576 bytes"),
        (_answering(307, "Location", "/v2/"), "redirects more than 5 times"),
        (_answering(307, "Location", "http://[::bad"), "redirects to something that is not a URL: 'http://[::bad'"),
        (_answering(401, "WWW-Authenticate", ""), "requires an authentication scheme that is not supported"),
        (_answering(401, "WWW-Authenticate", "Bearer realm="), "sends logins to ''"),
        (_answering(401, "WWW-Authenticate", "Bearer " + "a" * 5000), "sends logins to ''"),
        (_answering(401, "WWW-Authenticate", 'Bearer realm="file:///etc/passwd"'), "'file:///etc/passwd'"),
        (_answering(503, "Retry-After", "99999"), "was answered with status 503"),
    ],
)
def test_a_hostile_registry_ends_with_one_line_in_bounded_time(
    answer: Callable[[Request], Awaitable[Response]], detail: str
) -> None:
    begun = time.monotonic()
    with strange(answer) as address:
        image, settings = ImageReference.parse(f"{address}/team/app:v1"), Settings()
        with connect(image, settings, limits=LIMITS) as client:
            last = list(Target(image, settings, client).findings())[-1]
    assert (last.name, last.mark) == ("login", Mark.FAIL)
    assert detail in last.detail
    assert "\n" not in last.detail
    assert time.monotonic() - begun < 20
