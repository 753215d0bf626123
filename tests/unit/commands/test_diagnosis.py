"""The doctor's checks, with a PATH on which there is nothing or what a test puts there."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from local_stack.ports import free_port
from soci_pipeline.builders import engine_client
from soci_pipeline.cli import main
from soci_pipeline.commands.diagnosis import Check, diagnose, summary
from soci_pipeline.errors import ExitCode
from tests.support.certificates import certificate
from tests.support.programs import write_program
from tests.support.webhook import Recorded, loopback

NAMES = {
    *("python", "git", "disk space", "root", "docker engine", "buildx", "containerd socket", "ctr", "soci"),
    *("zlib-ng", "emulation", "settings", "registry credentials", "prefect", "prefect API"),
}


@pytest.fixture(autouse=True)
def without_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sign of AWS credentials but what a test sets itself."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_every_check_of_the_command_is_there_and_a_lack_comes_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    checks = _checks()
    assert set(checks) == NAMES
    assert all(check.advice for check in checks.values() if not check.ok)
    assert not checks["git"].ok
    assert checks["git"].essential
    assert not checks["soci"].ok


def test_a_tool_is_reported_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path / "bin", "soci", "echo soci version 0.15.0 abc")
    write_program(tmp_path / "bin", "ctr", "echo ctr containerd.io 1.7.24")
    write_program(tmp_path / "bin", "docker", "echo github.com/docker/buildx 0.20.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    checks = _checks()
    assert checks["soci"].detail == f"soci version 0.15.0 abc, {tmp_path / 'bin' / 'soci'}"
    assert checks["ctr"].detail == f"ctr containerd.io 1.7.24, {tmp_path / 'bin' / 'ctr'}"
    assert checks["buildx"].detail == f"github.com/docker/buildx 0.20.1, a plugin of {tmp_path / 'bin' / 'docker'}"
    assert checks["python"].detail.endswith(f", {sys.executable}")


def test_a_docker_command_without_buildx_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path / "bin", "docker", "echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    check = _checks()["buildx"]
    assert (check.ok, check.detail) == (False, "docker has no working buildx plugin")


def test_an_engine_that_is_named_and_silent_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    check = _checks()["docker engine"]
    assert not check.ok
    assert "DOCKER_HOST" in check.detail


def test_a_machine_without_an_engine_is_told_to_install_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine_client, "DEFAULT_HOST", f"unix://{tmp_path}/none.sock")
    check = _checks()["docker engine"]
    assert not check.ok
    assert str(check.advice).startswith("Install or start Docker;")


def test_a_user_without_a_password_is_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "user")
    monkeypatch.delenv("SOCI_PIPELINE_REGISTRY_PASSWORD", raising=False)
    check = _checks()["registry credentials"]
    assert not check.ok
    assert "SOCI_PIPELINE_REGISTRY_PASSWORD is not" in check.detail
    assert str(check.advice).startswith("Set SOCI_PIPELINE_REGISTRY_PASSWORD as well")


_PREFECT: dict[str, tuple[int, Any]] = {"/api/health": (200, True), "/api/work_pools/filter": (200, [])}


def test_a_prefect_server_whose_address_lacks_api_is_named_with_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Recorded) -> tuple[int, Any]:
        return _PREFECT.get(request.path, (404, {"detail": "Not Found"}))

    with loopback(answer) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        check = _checks()["prefect API"]
        assert (check.ok, check.detail) == (False, f"a Prefect server answers at {url}, but its API is at {url}/api")
        assert f"Set PREFECT_API_URL to {url}/api" in str(check.advice)
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        assert _checks()["prefect API"].ok


@pytest.mark.parametrize("answered", [(401, {}), (200, {"a": "page"}), (404, True)])
def test_another_server_is_not_taken_for_prefect(
    answered: tuple[int, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback(lambda request: answered if request.path == "/api/health" else (200, True)) as url:
        monkeypatch.setenv("PREFECT_API_URL", url.replace("http://", "http://user:do-not-show@"))
        check = _checks()["prefect API"]
    assert check.ok
    assert "do-not-show" not in check.detail


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:42o0/api", "http://127.0.0.1:99999/api"])
def test_what_is_no_address_of_prefect_is_one_lack_among_all_checks(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    checks = _checks()
    assert set(checks) == NAMES
    check = checks["prefect API"]
    assert (check.ok, check.detail) == (False, "PREFECT_API_URL is not a valid URL")


def test_a_prefect_server_whose_authority_the_active_profile_names_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Recorded) -> tuple[int, Any]:
        return _PREFECT.get(request.path, (404, {"detail": "Not Found"}))

    own = certificate(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    profiles = tmp_path / "profiles.toml"
    with loopback(answer, own=own) as url:
        for trust in (
            f'PREFECT_API_SSL_CERT_FILE = "{own.certificate}"',
            "PREFECT_API_TLS_INSECURE_SKIP_VERIFY = true",
        ):
            profiles.write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}/api"\n{trust}\n')
            assert _checks()["prefect API"].ok
            # Without /api the server is asked whether it is healthy, which needs the same trust.
            profiles.write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}"\n{trust}\n')
            assert f"its API is at {url}/api" in _checks()["prefect API"].detail
        profiles.write_text(f'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "{url}/api"\n')
        assert "CERTIFICATE_VERIFY_FAILED" in _checks()["prefect API"].detail


def test_the_address_and_login_of_prefects_active_profile_count_as_they_do_for_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Recorded) -> tuple[int, Any]:
        return (200, []) if request.headers.get("authorization") == "Bearer pnu_1" else (401, {})

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with loopback(answer) as url:
        profile = f'PREFECT_API_URL = "{url}/api"\nPREFECT_API_KEY = "pnu_1"\n'
        (tmp_path / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\n{profile}[profiles.other]\n')
        assert _checks()["prefect API"].detail == f"{url}/api"
        monkeypatch.setenv("PREFECT_PROFILE", "other")
        assert _checks()["prefect API"].detail == "PREFECT_API_URL is not set"
    (tmp_path / "profiles.toml").write_text("active = ")
    check = _checks()["prefect API"]
    assert (check.ok, check.advice) == (False, "Correct the file.")


def test_a_setting_that_a_worker_would_refuse_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_JOBS", "3")
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", "do-not-count")
    monkeypatch.delenv("CONTAINERD_ADDRESS", raising=False)
    assert _checks()["settings"].detail == "1 setting in the environment"
    monkeypatch.setenv("SOCI_PIPELINE_WORK_JOBS", "many")
    check = _checks()["settings"]
    assert (check.ok, check.detail) == (False, "setting SOCI_PIPELINE_WORK_JOBS: must be an integer")


def test_without_settings_the_defaults_are_named_beside_a_login_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "user")
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", "do-not-count")
    monkeypatch.delenv("CONTAINERD_ADDRESS", raising=False)
    assert _checks()["settings"].detail == "all have their defaults"
    monkeypatch.setenv("CONTAINERD_ADDRESS", "/run/another.sock")
    assert _checks()["settings"].detail == "1 setting in the environment"


def test_a_setting_that_registry_commands_refuse_is_essential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_JOSB", "3")

    assert main(["doctor"]) == ExitCode.TOOL_MISSING
    said = capsys.readouterr().out
    assert main(["inspect", "127.0.0.1:1/shop/web:1"]) == ExitCode.INVALID_INPUT

    assert "LACKING  settings " in said
    assert "SOCI_PIPELINE_WORK_JOBS" in said
    assert said.splitlines()[-1] == "this machine cannot publish anything (missing: settings)"


def test_a_broken_configuration_of_docker_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{bad")
    check = _checks()["registry credentials"]
    assert not check.ok
    assert check.detail.endswith("is not readable as Docker's configuration")
    assert check.advice == "Correct or remove the file; `docker login` writes a new one."


def test_a_prefect_server_that_is_not_there_is_a_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}")
    check = _checks()["prefect API"]
    assert not check.ok
    assert check.detail.startswith("no Prefect server answers at ")
    assert "Or correct PREFECT_API_URL." in str(check.advice)


@pytest.mark.parametrize(
    ("given", "reason", "advice"),
    [
        ({}, "requires a login, but none is set", "Set PREFECT_API_AUTH_STRING to user:password"),
        ({"PREFECT_API_AUTH_STRING": "u:wrong"}, "rejects the login", "Correct PREFECT_API_AUTH_STRING"),
        ({"PREFECT_API_KEY": "wrong"}, "rejects the login", "which takes precedence, or PREFECT_API_KEY"),
    ],
)
def test_a_prefect_server_that_wants_another_login_is_a_lack(
    given: dict[str, str], reason: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Recorded) -> tuple[int, Any]:
        sound = request.headers.get("authorization") == "Basic dTpyaWdodA=="
        return (200, []) if sound else (401, {"exception_message": "Unauthorized"})

    with loopback(answer) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        check = _checks()["prefect API"]
        assert (check.ok, check.detail) == (False, f"the Prefect server at {url}/api {reason}")
        assert advice in str(check.advice)
        monkeypatch.delenv("PREFECT_API_KEY", raising=False)
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "u:right")
        assert _checks()["prefect API"].ok


def test_something_else_that_answers_is_no_prefect_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(lambda _: (404, {"errors": []})) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        check = _checks()["prefect API"]
    assert not check.ok
    assert check.detail.startswith(f"the server at {url}/api is not a Prefect server")


def test_no_credential_is_ever_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "user")
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", "do-not-show")
    check = _checks()["registry credentials"]
    assert (check.ok, "SOCI_PIPELINE_REGISTRY is not set" in check.detail) == (False, True)
    assert "do-not-show" not in str(check)
    monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", "registry.example.com")
    check = _checks()["registry credentials"]
    assert check.ok
    assert "do-not-show" not in str(check)


def test_the_command_answers_with_one_json_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    assert {check["name"] for check in answer["checks"]} == NAMES
    assert all(set(check) == {"name", "ok", "mark", "detail", "advice"} for check in answer["checks"])
    assert {check["mark"] for check in answer["checks"] if check["ok"]} == {"ok"}
    assert {check["mark"] for check in answer["checks"] if not check["ok"]} <= {"no", "-"}
    assert answer["summary"].startswith("this machine can index")


def test_a_lack_of_something_essential_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor"]) == ExitCode.TOOL_MISSING
    said = capsys.readouterr().out
    assert "LACKING  git" in said
    assert said.splitlines()[-1] == "this machine cannot publish anything (missing: git)"


def test_a_lack_that_there_is_another_way_around_is_marked_apart_from_one_that_takes_something_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_program(tmp_path, "git", "echo git version 2")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name, value in (("PATH", str(tmp_path)), ("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}")):
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "\n-        ctr " in said
    assert "\nno       prefect API " in said
    last = said.splitlines()[-1]
    assert last.startswith("this machine can index")
    assert "run the flows (missing: prefect API)" in last


def test_the_disk_of_the_work_folder_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", "/proc/of-nobody/work")
    check = _checks()["disk space"]
    assert (check.ok, check.essential) == (False, True)
    assert f" free in {tmp_path}, 0 B free in /proc" in check.detail


@pytest.mark.parametrize("name", ["work/below", "x" * 300], ids=["missing", "one that cannot be looked at"])
def test_one_disk_is_named_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / name))
    detail = _checks()["disk space"].detail
    assert detail.count(" free in ") == 1
    assert detail.endswith(f" free in {tmp_path}")


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (
            {"ctr", "soci"},
            "this machine can index, publish prebuilt images, build images, log in to registries and run the flows",
        ),
        (
            {"docker engine", "registry credentials", "prefect", "prefect API"},
            "this machine can index and publish prebuilt images; it cannot build images (missing: docker engine), "
            "log in to registries (missing: registry credentials), run the flows (missing: prefect, prefect API)",
        ),
    ],
)
def test_the_last_line_says_what_the_machine_can_do_and_what_not(lacks: set[str], said: str) -> None:
    assert summary([Check(name, ok=name not in lacks, detail="") for name in sorted(NAMES)]) == said
