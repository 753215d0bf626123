"""A whole publication with marked secrets: none may show in argv, environments, logs, artifacts, runs or files.

The programs are fakes on the PATH that write down how they were called and what was handed to them; git is the real one
behind such a fake. What they were handed is how it is known that each secret was used at all.
"""

import base64
import io
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    LogFilter,
    LogFilterTimestamp,
)
from prefect.logging.handlers import APILogWorker
from pydantic import SecretStr

from flows.build_platform import build_platform
from soci_pipeline.machine.workspace import workspace
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.publish.registries import connect
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.source import Source
from soci_pipeline.registry.server import Login, ServerSettings, serving
from soci_pipeline.settings import Settings
from tasks.join import join
from tasks.provenance import attest
from tasks.run_log import run_log
from tasks.source import resolve_source
from tasks.tags import tag
from tasks.target import check_target
from tasks.verify import verify
from tests.support.archives import oci_archive
from tests.support.git_http import served_over_http
from tests.support.git_repositories import repository
from tests.support.images import AMD64, image_layout

SECRETS = {
    "registry password": "marked-registry-9f31",
    "build secret": "marked-build-77aa",
    "source token": "marked-source-c20e",
    "key password": "marked-key-5d18",
}

# Each fake notes argv and environment; `heard` gets what it was handed in the way that it should be.
FAKE = f"""#!{sys.executable}
import os, shutil, sys
from pathlib import Path

name, words = Path(sys.argv[0]).name, sys.argv[1:]
if "RECORD" not in os.environ:
    # Started by the server of the source, which is not part of the publication.
    os.execv({shutil.which("git")!r}, ["git", *words])
record = Path(os.environ["RECORD"])

def note(kind, text):
    (record / kind).mkdir(exist_ok=True)
    with (record / kind / name).open("a") as file:
        file.write(text + "\\n")

def after(flag):
    return next(words[at + 1] for at, word in enumerate(words) if word == flag)

note("argv", "\\n".join(words))
note("environment", "\\n".join(f"{{key}}={{value}}" for key, value in os.environ.items()))
fails = os.environ.get("FAIL") == name

if name == "git":
    if fails and "fetch" in words:
        sys.exit("fatal: Authentication failed")
    os.execv(os.environ["REAL_GIT"], ["git", *words])
elif words == ["buildx", "version"]:
    print("github.com/docker/buildx v0.13.1 abc")
elif words[:1] == ["info"]:
    print(os.environ["ENGINE"])
elif words[:2] == ["buildx", "build"]:
    fields = dict(part.split("=", 1) for part in after("--secret").split(","))
    secret = Path(fields["src"]).read_text()
    note("heard", secret)
    # What a careless Dockerfile prints must be left out; what the pipeline was never told of cannot be.
    print("RUN echo", secret, os.environ.get("UNKNOWN", ""))
    if fails:
        sys.exit("ERROR: process did not complete successfully")
    place = dict(part.split("=", 1) for part in after("--output").split(","))
    shutil.copy(os.environ["ARCHIVE"], place["dest"])
elif name == "cosign":
    note("heard", sys.stdin.read())
    note("heard", (Path(os.environ["DOCKER_CONFIG"]) / "config.json").read_text())
    if words[0] == "verify" or fails:
        sys.exit("no signatures found")
"""
ENGINE = '{"ServerVersion":"26.1.5","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}'


@flow(name="whole-publication")
def publication(parameters: dict[str, Any]) -> None:
    """The steps of publish-image; its branch runs here as a subflow, since no worker does."""
    request, settings = PublishRequest.check(parameters), Settings.from_environment()
    with run_log(), workspace(settings.work.folder, "publish", REMOVERS), connect(request.image, settings) as client:
        commit = resolve_source(request.source, request.ref, request.required_files, request.source_credentials)
        source = Source(commit, request.source_credentials)
        names = request.tag_names(source.commit, datetime.now(UTC).date())
        target = check_target(request.image, names, source, client, settings)
        images = [build_platform(request.branch(platform, source.commit)) for platform in request.platforms]
        index = join(target, source, images, request.platforms)
        verify(client, request.image, index.digest, request.verify, request.platforms)
        attest(target, source, index, images, settings, parameters=request.statement_parameters())
        tag(target, index, images)


@dataclass
class Scene:
    """Where everything lies, and what was seen."""

    folder: Path
    parameters: dict[str, Any]
    log: io.StringIO
    places: dict[str, str] = field(default_factory=dict)

    def publish(self, **more: Any) -> Any:
        """Publish, and gather everything that somebody else may read."""
        started = datetime.now(UTC)
        state = publication(self.parameters | more, return_state=True)
        APILogWorker.drain_all(timeout=60)
        self._gather(started, state)
        return state

    def _gather(self, started: datetime, state: Any) -> None:
        """Read what the server has since then: an earlier test may have shown a secret on purpose."""
        with get_client(sync_client=True) as client:
            begun = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(after_=started))
            self.places["flow runs"] = "\n".join(
                run.model_dump_json() for run in client.read_flow_runs(flow_run_filter=begun)
            )
            self.places["task runs"] = "\n".join(
                run.model_dump_json() for run in client.read_task_runs(flow_run_filter=begun)
            )
            self.places["artifacts"] = "\n".join(
                each.model_dump_json() for each in client.read_artifacts(flow_run_filter=begun)
            )
            written = LogFilter(timestamp=LogFilterTimestamp(after_=started))
            pages = [client.read_logs(written, limit=200, offset=200 * page) for page in range(50)]
            assert not pages[-1], "there are more log lines than were read"
        self.places["run logs"] = "\n".join(line.message for page in pages for line in page)
        self.places["python logs"] = self.log.getvalue()
        failure = state.result(raise_on_failure=False) if not state.is_completed() else None
        if isinstance(failure, BaseException):
            self.places["exception"] = "".join(traceback.format_exception(failure)) + repr(failure)
        for kind in ("argv", "environment"):
            self.places[kind] = "\n".join(
                path.read_text() for path in sorted((self.folder / "record" / kind).iterdir())
            )
        for name in ("work", "tmp"):
            files = [path for path in (self.folder / name).rglob("*") if path.is_file()]
            self.places[f"files in {name}"] = "\n".join(path.read_bytes().decode("latin-1") for path in files)

    @property
    def leaks(self) -> set[tuple[str, str]]:
        """Each place where a secret shows, plainly or in one of the forms that it travels in."""
        return {
            (place, name)
            for place, text in self.places.items()
            for name, secret in SECRETS.items()
            if any(form in text for form in forms(secret))
        }

    def heard(self, program: str) -> str:
        return (self.folder / "record" / "heard" / program).read_text()


def forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    for user in ("robot:", ""):
        yield base64.b64encode(f"{user}{secret}".encode()).decode().rstrip("=")


def block(value: str) -> str:
    name = f"marked-{uuid4().hex[:8]}"
    Secret(value=value).save(name)
    return f"secret/{name}"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    git = shutil.which("git")
    assert git is not None
    for name in ("bin", "record/heard", "tmp", "docker"):
        (tmp_path / name).mkdir(parents=True)
    repository(tmp_path / "app", {"Dockerfile": "FROM scratch\n"})
    archive = oci_archive(tmp_path / "image.tar", image_layout(tmp_path / "image", AMD64))
    login = Login("robot", SecretStr(SECRETS["registry password"]), bearer=True)
    pair = base64.b64encode(f"robot:{SECRETS['registry password']}".encode()).decode()
    log = io.StringIO()

    def heard_by_git(path: str, user: str, password: str) -> bool:
        """The server of the source notes every login that it receives."""
        with (tmp_path / "record" / "heard" / "git").open("a") as file:
            file.write(f"{password}\n")
        return password == SECRETS["source token"]

    handler = logging.StreamHandler(log)
    with (
        served_over_http(tmp_path, heard_by_git) as git_server,
        serving(tmp_path / "registry", settings=ServerSettings(login=login)) as address,
    ):
        for name in ("git", "docker", "cosign"):
            (tmp_path / "bin" / name).write_text(FAKE)
            (tmp_path / "bin" / name).chmod(0o755)
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {address: {"auth": pair}}}))
        environment = {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(tmp_path / "tmp"),
            "RECORD": str(tmp_path / "record"),
            "REAL_GIT": git,
            "ENGINE": ENGINE,
            "ARCHIVE": str(archive),
            "DOCKER_CONFIG": str(tmp_path / "docker"),
            "COSIGN_PASSWORD": SECRETS["key password"],
            "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work"),
            "SOCI_PIPELINE_PUBLISH_SIGNING_KEY": str(tmp_path / "cosign.key"),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("tempfile.tempdir", None)
        parameters = {
            "image": f"{address}/team/app",
            "source": f"{git_server}/app/.git",
            "source_credentials": block(SECRETS["source token"]),
            "build_secrets": {"npm": block(SECRETS["build secret"])},
            "platforms": ["linux/amd64"],
            "builder": "buildx",
            "soci": {"min_layer_size": 0, "span_size": 65536},
        }
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            yield Scene(tmp_path, parameters, log)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)


def test_no_secret_of_a_publication_shows_anywhere(scene: Scene) -> None:
    state = scene.publish()
    assert state.is_completed(), state.message
    assert scene.leaks == set()
    # Each was used, by whom it was meant for.
    assert SECRETS["source token"] in scene.heard("git")
    assert SECRETS["build secret"] in scene.heard("docker")
    assert SECRETS["key password"] in scene.heard("cosign")
    assert "auths" in scene.heard("cosign")
    # And the places that were searched are not empty.
    assert {name for name, text in scene.places.items() if not text} <= {"files in tmp"}
    assert "verified:" in scene.places["run logs"]


@pytest.mark.parametrize("program", ["git", "docker", "cosign"])
def test_no_secret_shows_when_a_step_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setenv("FAIL", program)
    state = scene.publish()
    assert state.is_failed()
    assert scene.places["exception"]
    assert scene.leaks == set()


def test_no_password_shows_when_the_registry_refuses_it(scene: Scene) -> None:
    pair = base64.b64encode(f"other:{SECRETS['registry password']}".encode()).decode()
    address = scene.parameters["image"].partition("/")[0]
    (scene.folder / "docker" / "config.json").write_text(json.dumps({"auths": {address: {"auth": pair}}}))
    state = scene.publish()
    assert state.is_failed()
    assert "AccessRefused" in scene.places["exception"]
    assert scene.leaks == set()


def test_the_search_finds_a_secret_that_does_show(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a build that prints one of another's, and a user who gives one as a build argument."""
    monkeypatch.setenv("UNKNOWN", SECRETS["registry password"])
    (scene.folder / "tmp" / "left").write_text(SECRETS["source token"])
    scene.publish(build_args={"NPM": SECRETS["key password"]})
    assert {
        ("run logs", "registry password"),
        ("python logs", "registry password"),
        ("argv", "key password"),
        ("flow runs", "key password"),
        ("files in tmp", "source token"),
    } <= scene.leaks
