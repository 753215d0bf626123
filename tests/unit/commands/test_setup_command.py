"""`soci-pipeline setup` of this checkout with servers that know nothing yet; nothing of it imports Prefect."""

import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.commands import setup as setup_command
from soci_pipeline.errors import ExitCode
from soci_pipeline.prefect_setup.publication_plan import declared_names
from tests.support.webhook import Recorded, loopback

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "flows").mkdir()
    (tmp_path / "prefect.yaml").write_text("name: soci-pipeline\n")
    for part in ("work-pools", "automations", "block-types"):
        shutil.copytree(REPOSITORY / "deployments" / part, tmp_path / "deployments" / part)
    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-home"))
    return tmp_path


@pytest.fixture
def requests(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recorded]]:
    """Every request to a server that has nothing and takes what it is given."""
    recorded: list[Recorded] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        recorded.append(request)
        if request.method == "GET":
            return 404, {"detail": "Not Found"}
        return (200, []) if request.path.endswith("/filter") else (201, {"id": "an-id"})

    with loopback(answer) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        yield recorded


def made(requests: list[Recorded]) -> list[str]:
    return [each.path for each in requests if each.method != "GET" and not each.path.endswith("/filter")]


def test_what_was_made_is_told_in_plain_words(requests: list[Recorded], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines() == [
        *(f"work pool {name}: made" for name in ("soci-control", "soci-amd64", "soci-arm64")),
        "limit soci-control: at most 100 runs at once",
        *(f"python {pool}: the Python of each worker" for pool in ("soci-control", "soci-amd64", "soci-arm64")),
        "automation soci-pipeline crash silent runs: made",
        "automation soci-pipeline notify failed publications: skipped: no --notify-block",
        "block aws-credentials: registered",
        "block aws-secret: registered",
        setup_command._NEXT,
    ]
    assert "`prefect worker start --pool soci-control`" in setup_command._NEXT
    posted = [f"/api/{name}/" for name in ("block_types", "block_schemas")]
    assert made(requests) == [*["/api/work_pools/"] * 3, "/api/automations/", *posted, *posted]
    assert requests[-1].body["block_type_id"] == "an-id"
    assert main(["setup", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["work_pools", "limits", "commands", "automations", "blocks"]
    assert report["limits"] == {"soci-control": "at most 100 runs at once"}


def test_a_python_that_is_not_on_this_machine_is_warned_of(
    requests: list[Recorded], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["setup", "--worker-python", "/nowhere/python"]) == ExitCode.OK
    assert "python soci-amd64: /nowhere/python -m prefect.engine" in capsys.readouterr().out
    assert "/nowhere/python cannot run on this machine" in caplog.text
    caplog.clear()
    assert main(["setup", "--worker-python", "none"]) == ExitCode.OK
    assert not caplog.messages
    assert main(["setup", "--worker-python", "bin/python"]) == ExitCode.INVALID_INPUT


@pytest.mark.parametrize("name", ["foo", "foo/", "/foo", "a/b/c", ""])
def test_a_block_without_type_or_name_is_refused_before_anything_is_asked_for(
    requests: list[Recorded], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["setup", "--notify-block", name]) == ExitCode.INVALID_INPUT
    what, next_step, _ = capsys.readouterr().err.splitlines()
    assert what == f"soci-pipeline: --notify-block {name!r} must have the form TYPE/NAME"
    assert "slack-webhook/releases" in next_step
    assert requests == []


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        ("work-pools/pools.yaml", "pools: [", "while parsing"),
        ("work-pools/pools.yaml", "template: process.json\n", "`pools` (a list)"),
        ("work-pools/pools.yaml", "template: process.json\npools: [{name: a/b}]\n", "'a/b'"),
        ("work-pools/pools.yaml", "template: process.json\npools: [{name: a, concurrency_limit: x}]\n", "not 'x'"),
        ("work-pools/pools.yaml", "template: process.json\nenvironment: [A]\npools: []\n", "must be a mapping,"),
        ("work-pools/pools.yaml", "template: none.json\npools: []\n", "No such file"),
        ("work-pools/process.json", "[]", "must be a mapping,"),
        ("block-types/aws-secret.json", "{}", "must be a mapping, not None"),
        ("block-types/aws-secret.json", '{"slug": "a", "block_schema": {}}', "missing: code_example"),
        ("automations/crash-silent-runs.yaml", "name: a\n", "`actions` (a list)"),
        ("automations/crash-silent-runs.yaml", "name: a\nactions: [b]\ntrigger: {}\n", "must be a mapping,"),
    ],
)
def test_a_file_of_the_checkout_that_is_not_valid_is_named_before_anything_is_changed(
    checkout: Path, requests: list[Recorded], capsys: pytest.CaptureFixture[str], file: str, content: str, cause: str
) -> None:
    (checkout / "deployments" / file).write_text(content)
    assert main(["setup"]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert cause in said
    assert "is not valid" in said
    assert "next: Correct the file" in said
    assert made(requests) == []


def test_a_job_template_of_the_checkout_that_cannot_have_a_python_is_an_error(
    checkout: Path, requests: list[Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "deployments" / "work-pools" / "process.json").write_text('{"variables": {"properties": {}}}')
    assert main(["setup", "--worker-python", "/nowhere/python"]) == ExitCode.INVALID_INPUT
    assert "its job template has no variable `command`" in capsys.readouterr().err
    assert made(requests) == []


def test_without_prefect_aws_its_blocks_are_left_out(
    requests: list[Recorded], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert main(["setup"]) == ExitCode.OK
    assert "block aws: skipped: prefect-aws is not installed" in capsys.readouterr().out
    assert not [path for path in made(requests) if "block" in path]


def test_blocks_of_another_prefect_aws_than_the_files_describe_are_read_from_the_package(
    checkout: Path, requests: list[Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (checkout / "deployments" / "block-types").glob("*.json"):
        document = json.loads(path.read_text())
        document["block_schema"]["version"] = "0.0.1"
        path.write_text(json.dumps(document))
    package = checkout / "deployments" / "block_types.py"
    schema = {"checksum": "sha256:1", "fields": {"title": "Other"}, "capabilities": [], "version": "9"}
    package.write_text(f"def documents(): return [{{'name': 'Other', 'slug': 'other', 'block_schema': {schema}}}]\n")
    assert main(["setup"]) == ExitCode.OK
    assert "block other: registered" in capsys.readouterr().out
    assert [each.body.get("fields") for each in requests if each.path == "/api/block_schemas/"] == [{"title": "Other"}]

    package.write_text("import no_such_package\n")
    requests.clear()
    assert main(["setup"]) == ExitCode.TOOL_FAILED
    assert "No module named 'no_such_package'" in capsys.readouterr().err
    assert made(requests) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dry-run"], "--dry-run requires --publications"),
        (["--remove"], "--remove requires --publications"),
        (["--on-conflict", "file"], "--on-conflict requires --publications"),
        (["--publications", "FILE", "--notify-block", "a/b"], "--notify-block cannot be combined with --publications"),
        (["--publications", "FILE", "--worker-python", "/a"], "--worker-python cannot be combined with --publications"),
    ],
)
def test_options_that_do_not_go_together_are_rejected(
    requests: list[Recorded], capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["setup", *options]) == ExitCode.INVALID_INPUT
    assert said in capsys.readouterr().err
    assert requests == []


def test_a_publications_file_that_is_not_valid_is_named_before_the_server_is_called(
    checkout: Path, requests: list[Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / "publications.yaml"
    path.write_text("version: 1\nowner: shop\npublications:\n  - nam: web\n")
    assert main(["setup", "--publications", str(path), "--json"]) == ExitCode.INVALID_INPUT
    answer = json.loads(capsys.readouterr().out)
    assert f"{path}:4: publications.0: unknown key 'nam'; did you mean 'name'?" in answer["reason"]
    assert requests == []


def test_a_change_of_a_publication_that_prefect_rejects_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(REPOSITORY / "prefect.yaml", checkout)
    release: dict[str, Any] = {
        "name": declared_names(checkout)[0],
        "flow_id": "f",
        "tags": [],
        "parameter_openapi_schema": None,
    }

    def answer(request: Recorded) -> tuple[int, Any]:
        if request.path.endswith("/filter"):
            return 200, [release] if "deployments" in request.path else []
        return (404, {}) if request.method == "GET" else (422, {"detail": "not like this"})

    with loopback(answer) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        command = ["setup", "--publications", str(REPOSITORY / "examples" / "publications.yaml")]
        assert main([*command, "--dry-run"]) == ExitCode.OK
        planned = capsys.readouterr().out.splitlines()
        assert main(command) == ExitCode.TOOL_FAILED
    assert planned == [f"publish-image/{name}: would be created" for name in ("shop", "shop-nightly")]
    assert "422 to POST /deployments/" in capsys.readouterr().err


def test_a_publications_file_is_checked_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "none"))
    file = str(REPOSITORY / "examples" / "publications.yaml")
    assert main(["setup", "--publications", file, "--check"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith(f"OK: {file} is valid: ")
    wrong = tmp_path / "publications.yaml"
    wrong.write_text("version: 1\nowner: shop\npublications: [3]\n")
    assert main(["setup", "--publications", str(wrong), "--check"]) == ExitCode.INVALID_INPUT
    assert "must be a mapping, not 3" in capsys.readouterr().err
    assert main(["setup", "--publications", file, "--check", "--remove"]) == ExitCode.INVALID_INPUT
    assert main(["setup", "--check"]) == ExitCode.INVALID_INPUT
