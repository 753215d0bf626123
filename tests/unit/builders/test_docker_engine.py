"""The classic builder against an engine that answers by plan; builds by real engines are the real tier's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from soci_pipeline.builders.docker_engine import DockerBuilder
from soci_pipeline.builders.errors import NotSupportedByBuilder
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import BuildFailed, DiskFull, EngineUnavailable, InvalidInput
from soci_pipeline.tool_versions import ToolTooOld
from tests.support.images import AMD64, ARM64

CONTAINERD = [["driver-type", "io.containerd.snapshotter.v1"]]
NO_IMAGE = {"message": "No such image: soci-pipeline-build:0"}
CLASSIC = [["Backing Filesystem", "extfs"]]


@dataclass
class Engine:
    """An engine of linux/amd64: what it says of itself, of a build, and what it was asked for."""

    version: str = "26.1.5"
    store: list[list[str]] = field(default_factory=lambda: CLASSIC)
    events: list[dict[str, str]] = field(default_factory=lambda: [{"stream": "Step 1/1 : FROM scratch\n"}])
    image: bytes | None = b"the archive"
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    host: str = ""

    def paths(self, method: str) -> list[str]:
        return [path for each, path, _ in self.asked if each == method]

    def query(self, path: str) -> dict[str, str]:
        return next(query for _, each, query in self.asked if each == path)

    def answer(self, path: str) -> Any:
        return {
            "/version": {"ApiVersion": "1.45", "Version": self.version, "Os": "linux", "Arch": "amd64"},
            "/info": {"DriverStatus": self.store},
        }.get(path)


def _handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            path = url.path.removeprefix("/v1.45")
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            engine.asked.append((self.command, path, query))
            if path == "/build":
                self._stream(json.dumps(event).encode() + b"\r\n" for event in engine.events)
            elif path.endswith("/get") and engine.image is not None:
                self._whole(200, engine.image)
            else:
                document = engine.answer(path)
                self._whole(404 if document is None else 200, json.dumps(document or NO_IMAGE).encode())

        def _whole(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, pieces: Any) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = _any  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(made)) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        made.host = f"tcp://127.0.0.1:{server.server_port}"
        yield made
        server.shutdown()
        thread.join()


def _request(folder: Path, **fields: Any) -> BuildRequest:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "Dockerfile").write_text("FROM scratch\n")
    return BuildRequest(**{"source": folder / "source", "platform": AMD64, "source_date_epoch": 17, **fields})


def _builder(engine: Engine, folder: Path) -> DockerBuilder:
    return DockerBuilder({"DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(folder), "HOME": str(folder)})


def test_the_saved_archive_is_the_answer_and_the_image_leaves_the_engine(tmp_path: Path, engine: Engine) -> None:
    request = _request(tmp_path, build_args={"A": "1"}, target="service")
    archive = _builder(engine, tmp_path).build(request, tmp_path / "out")
    assert archive.read_bytes() == b"the archive"
    asked = engine.query("/build")
    assert (asked["platform"], asked["target"], asked["dockerfile"]) == ("linux/amd64", "service", "Dockerfile")
    assert json.loads(asked["buildargs"]) == {"SOURCE_DATE_EPOCH": "17", "A": "1"}
    assert engine.paths("DELETE") == [f"/images/{asked['t']}"]
    assert engine.query(engine.paths("DELETE")[0])["noprune"] == "True", "the steps below it are the cache"


def test_a_step_that_fails_is_shown_with_the_lines_before_it(tmp_path: Path, engine: Engine) -> None:
    engine.events = [
        {"stream": "Step 2/2 : RUN make\n"},
        {"stream": "no rule to make target\n"},
        {"error": "The command '/bin/sh -c make' returned a non-zero code: 2"},
    ]
    with pytest.raises(BuildFailed) as caught:
        _builder(engine, tmp_path).build(_request(tmp_path), tmp_path / "out")
    assert "linux/amd64" in caught.value.reason
    assert "returned a non-zero code: 2\nStep 2/2 : RUN make\nno rule to make target" in caught.value.reason
    assert not any(path.endswith("/get") for path in engine.paths("GET")), "nothing is saved of it"


def test_of_a_long_build_that_fails_the_last_lines_are_shown(tmp_path: Path, engine: Engine) -> None:
    engine.events = [{"stream": f"line {number}.\n"} for number in range(100)] + [{"error": "it failed"}]
    with pytest.raises(BuildFailed) as caught:
        _builder(engine, tmp_path).build(_request(tmp_path), tmp_path / "out")
    assert "it failed\nline 70.\n" in caught.value.reason
    assert caught.value.reason.endswith("line 99.\n")


def test_an_engine_whose_disk_is_full_is_told_from_a_bad_dockerfile(tmp_path: Path, engine: Engine) -> None:
    engine.events = [{"error": "write /var/lib/docker/tmp: no space left on device"}]
    with pytest.raises(DiskFull, match="linux/amd64"):
        _builder(engine, tmp_path).build(_request(tmp_path), tmp_path / "out")


def test_an_image_that_cannot_be_saved_is_no_archive(tmp_path: Path, engine: Engine) -> None:
    engine.image = None
    with pytest.raises(BuildFailed, match="linux/amd64"):
        _builder(engine, tmp_path).build(_request(tmp_path), tmp_path / "out")


def test_a_full_disk_of_ours_is_named(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "image.tar").symlink_to("/dev/full")
    engine.image = bytes(1 << 16)
    with pytest.raises(DiskFull, match="while saving the image"):
        _builder(engine, tmp_path).build(_request(tmp_path), tmp_path / "out")
    assert engine.paths("DELETE"), "the image is removed all the same"


def test_an_old_engine_is_refused_with_both_versions(tmp_path: Path, engine: Engine) -> None:
    engine.version = "19.3.15"
    with pytest.raises(ToolTooOld, match=r"19\.3\.15.*20\.10\.0"):
        _builder(engine, tmp_path).check(_request(tmp_path))


def test_a_foreign_platform_is_refused_where_the_engine_would_take_it_for_its_own(
    tmp_path: Path, engine: Engine
) -> None:
    foreign = _request(tmp_path, platform=ARM64)
    _builder(engine, tmp_path).check(foreign)
    engine.store = CONTAINERD
    with pytest.raises(NotSupportedByBuilder, match=r"builds only for linux/amd64, but linux/arm64 was requested"):
        _builder(engine, tmp_path).check(foreign)
    _builder(engine, tmp_path).check(_request(tmp_path))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"attestations": True}, "attestations"),
        ({"cache_to": ("type=local",)}, "an exported cache"),
        ({"buildx_builder": "mine"}, "a buildx builder"),
    ],
)
def test_what_only_buildx_can_do_is_refused_before_the_engine_is_asked(
    tmp_path: Path, engine: Engine, fields: dict[str, Any], what: str
) -> None:
    with pytest.raises(NotSupportedByBuilder, match=f"does not support {what}"):
        _builder(engine, tmp_path).check(_request(tmp_path, **fields))
    assert engine.asked == []


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "web.Dockerfile", "build/web.Dockerfile"])
def test_a_dockerfile_with_an_ignore_file_of_its_own_is_refused_before_anything_is_sent(
    tmp_path: Path, engine: Engine, dockerfile: str
) -> None:
    request = _request(tmp_path, dockerfile=dockerfile)
    place = request.source / dockerfile
    place.parent.mkdir(exist_ok=True)
    place.write_text("FROM scratch\nCOPY . /\n")
    (request.source / ".env").write_text("PASSWORD=secret")
    (request.source / ".dockerignore").write_text("other\n")
    _builder(engine, tmp_path).check(request)
    engine.asked.clear()
    place.with_name(f"{place.name}.dockerignore").write_text(".env\n")
    with pytest.raises(NotSupportedByBuilder, match=r"Dockerfile\.dockerignore'") as caught:
        _builder(engine, tmp_path).build(request, tmp_path / "out")
    assert "`buildx`" in str(caught.value.advice)
    assert engine.asked == []


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (b"\xef\xbb\xbf.env\n", NotSupportedByBuilder, "starts with a byte order mark"),
        (".env\n".encode("utf-16"), InvalidInput, "cannot be read"),
        (None, InvalidInput, "cannot be read"),
    ],
    ids=["byte order mark", "UTF-16", "link to nothing"],
)
def test_an_ignore_file_whose_patterns_would_not_all_be_read_is_refused_before_anything_is_sent(
    tmp_path: Path, engine: Engine, content: bytes | None, error: type[Exception], reason: str
) -> None:
    request = _request(tmp_path)
    ignore_file = request.context_folder() / ".dockerignore"
    if content is None:
        ignore_file.symlink_to("nowhere")
    else:
        ignore_file.write_bytes(content)
    with pytest.raises(error, match=reason):
        _builder(engine, tmp_path).build(request, tmp_path / "out")
    assert engine.asked == []


def test_an_engine_that_is_gone_is_named(tmp_path: Path) -> None:
    nobody = DockerBuilder({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    with pytest.raises(EngineUnavailable, match=r"no Docker engine answers at unix://\S+/none\.sock"):
        nobody.check(_request(tmp_path))
