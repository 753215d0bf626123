from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from soci_pipeline.builders.builder import BuilderName, FirstThatWorks, choose
from soci_pipeline.builders.errors import BuilderUnavailable, DockerfileMissing, NotSupportedByBuilder
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import BuildFailed, EngineUnavailable, InvalidInput, SociPipelineError
from tests.support.fake_programs import Programs
from tests.support.images import AMD64

WORKING = """
case "$*" in
  "buildx version") echo "github.com/docker/buildx v0.13.1 abc" ;;
  info*) echo '{"ServerVersion":"26.1.5","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}' ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


def request(tmp_path: Path, **fields: Any) -> BuildRequest:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return BuildRequest(**{"source": tmp_path, "platform": AMD64, "source_date_epoch": 1, **fields})


def nowhere(programs: Programs, tmp_path: Path) -> dict[str, str]:
    return {**programs.env, "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"}


def test_an_unknown_builder_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'kaniko'") as caught:
        choose("kaniko", request(tmp_path))
    assert "auto, buildx, docker, prebuilt" in str(caught.value)


def test_auto_takes_prebuilt_where_the_request_names_an_archive(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"")
    assert choose("auto", request(tmp_path, prebuilt="image.tar")).name is BuilderName.PREBUILT


def test_auto_takes_buildx_where_it_works(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", WORKING)
    assert choose("auto", request(tmp_path), env=nowhere(programs, tmp_path)).name is BuilderName.BUILDX


def test_auto_without_any_engine_says_why_for_each_builder(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        choose("auto", request(tmp_path), env={**nowhere(programs, tmp_path), "PATH": str(programs.folder)})
    assert "buildx: the program 'docker' is not on the PATH" in str(caught.value)
    assert "docker: no Docker engine answers at unix://" in str(caught.value)


def test_auto_does_not_take_a_bad_request_for_a_missing_engine(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(DockerfileMissing):
        choose("auto", request(tmp_path, dockerfile="missing"), env=nowhere(programs, tmp_path))


@pytest.mark.parametrize(
    "fields", [{"secrets": {"token": "Dockerfile"}}, {"attestations": True}, {"cache_to": ("type=inline",)}]
)
def test_the_docker_builder_refuses_what_only_buildx_can_do(tmp_path: Path, fields: dict[str, Any]) -> None:
    if "secrets" in fields:
        fields = {"secrets": {"token": tmp_path / "Dockerfile"}}
    with pytest.raises(NotSupportedByBuilder) as caught:
        choose("docker", request(tmp_path, **fields))
    assert "Choose the builder `buildx`" in str(caught.value)


def test_the_docker_builder_names_an_engine_that_does_not_run(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"no Docker engine answers at unix://\S+ \(from DOCKER_HOST\)"):
        choose("docker", request(tmp_path), env=nowhere(programs, tmp_path))


class Answering:
    """A builder that ends in a folder or in an error."""

    compresses = True
    trusted = True

    def __init__(self, name: BuilderName, error: SociPipelineError | None = None) -> None:
        self.name = name
        self._error = error

    def check(self, request: BuildRequest) -> None:
        """Nothing to check."""

    def build(self, request: BuildRequest, destination: Path) -> Path:
        if self._error is not None:
            raise self._error
        return destination / self.name


def test_the_engines_builder_takes_over_where_buildkit_cannot_be_had(tmp_path: Path) -> None:
    first = Answering(BuilderName.BUILDX, BuilderUnavailable("no image"))
    builder = FirstThatWorks([first, Answering(BuilderName.DOCKER)])
    assert builder.build(request(tmp_path), tmp_path) == tmp_path / "docker"
    assert builder.name is BuilderName.DOCKER


def test_a_build_that_fails_is_not_tried_with_another_builder(tmp_path: Path) -> None:
    first = Answering(BuilderName.BUILDX, BuildFailed("exit 1"))
    builder = FirstThatWorks([first, Answering(BuilderName.DOCKER)])
    with pytest.raises(BuildFailed):
        builder.build(request(tmp_path), tmp_path)


class _AnyEngine(BaseHTTPRequestHandler):
    """A Docker engine with the classic image store; what it is asked does not matter."""

    def do_GET(self) -> None:
        body = b'{"ApiVersion":"1.45","Version":"26.1.5","Os":"linux","Arch":"amd64","DriverStatus":[]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def engine_alone(programs: Programs) -> Iterator[dict[str, str]]:
    """The environment of a machine with an engine and without buildx."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _AnyEngine) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield {"PATH": str(programs.folder), "DOCKER_HOST": f"tcp://127.0.0.1:{server.server_port}"}
        server.shutdown()
        thread.join()


def test_auto_says_that_it_uses_the_engines_builder_and_why(
    tmp_path: Path, engine_alone: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert choose("auto", request(tmp_path), env=engine_alone).name is BuilderName.DOCKER
    [said] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "`auto` uses docker: buildx: the program 'docker' is not on the PATH" in said.getMessage()


def test_auto_does_not_use_a_builder_that_ignores_the_ignore_file_of_the_dockerfile(
    tmp_path: Path, engine_alone: dict[str, str]
) -> None:
    (tmp_path / "Dockerfile.dockerignore").write_text(".env\n")
    with pytest.raises(EngineUnavailable, match="does not read the Dockerfile's own ignore file"):
        choose("auto", request(tmp_path), env=engine_alone)


def test_buildx_builds_with_an_ignore_file_of_the_dockerfile(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", WORKING)
    (tmp_path / "Dockerfile.dockerignore").write_text(".env\n")
    assert choose("auto", request(tmp_path), env=nowhere(programs, tmp_path)).name is BuilderName.BUILDX
