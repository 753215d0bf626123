"""Finding an engine that runs; starting a private one is the real tier's."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from local_stack.engine import find_engine, private_engine
from soci_pipeline.containerd import socket as containerd_socket
from soci_pipeline.containerd.socket import find_socket
from soci_pipeline.errors import EngineUnavailable, ToolMissing

INFORMATION = {"ServerVersion": "28.0.1", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}


@contextmanager
def _engine(information: dict[str, Any]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = {"ApiVersion": "1.45"} if self.path.endswith("/version") else information
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_engine_that_docker_host_names_is_used() -> None:
    with _engine(INFORMATION) as address:
        found = find_engine({"DOCKER_HOST": address, "PATH": "/bin"})
    assert found is not None
    assert (found.version, found.docker_host, found.private) == ("28.0.1", address, False)
    assert found.containerd_image_store
    assert found.env["DOCKER_HOST"] == address


def test_the_classic_image_store_is_told_apart() -> None:
    with _engine({"ServerVersion": "20.10.24", "DriverStatus": [["Backing Filesystem", "extfs"]]}) as address:
        found = find_engine({"DOCKER_HOST": address})
    assert found is not None
    assert not found.containerd_image_store


def test_a_named_engine_that_does_not_answer_is_an_error_not_a_reason_for_another(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no Docker engine answers at DOCKER_HOST=unix:///") as caught:
        find_engine({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert "unset DOCKER_HOST" in str(caught.value.advice)


def test_a_named_containerd_socket_is_handed_on() -> None:
    with _engine(INFORMATION) as address:
        found = find_engine({"DOCKER_HOST": address, "CONTAINERD_ADDRESS": "/run/c.sock"})
    assert found is not None
    assert found.containerd_socket == Path("/run/c.sock")


@pytest.mark.skipif(os.geteuid() == 0, reason="an ordinary user is refused, but this is root")
def test_an_ordinary_user_is_told_what_to_do_instead_of_a_private_engine(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="only root") as caught, private_engine(tmp_path):
        pass
    assert "prebuilt" in str(caught.value.advice)


def test_a_named_containerd_socket_may_be_written_as_a_url() -> None:
    with _engine(INFORMATION) as address:
        found = find_engine({"DOCKER_HOST": address, "CONTAINERD_ADDRESS": "unix:///run/c.sock"})
    assert found is not None
    assert found.containerd_socket == Path("/run/c.sock")


@contextmanager
def _listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def test_the_containerd_of_an_engine_is_the_one_that_the_toolchain_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, first, second = (tmp_path / name for name in ("dead.sock", "first.sock", "second.sock"))
    with _listening(dead):
        pass
    monkeypatch.setattr(containerd_socket, "USUAL", (dead, first, second))
    with _engine(INFORMATION) as host, _listening(first), _listening(second):
        found = find_engine({"DOCKER_HOST": host})
        assert found is not None
        assert found.containerd_socket == find_socket(env={"DOCKER_HOST": host}) == first
        assert found.env["CONTAINERD_ADDRESS"] == str(first)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
def test_a_containerd_in_a_folder_of_root_s_is_none_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "run"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(containerd_socket, "USUAL", (closed / "containerd.sock",))
    environment = {"HOME": "/", "PATH": os.environ["PATH"]}
    with _engine(INFORMATION) as host, _listening(closed / "containerd.sock"):
        own = find_engine({"DOCKER_HOST": host, **environment})
        with _somebody_else():
            found = find_engine({"DOCKER_HOST": host, **environment})
    assert own is not None
    assert own.containerd_socket == closed / "containerd.sock"
    assert found is not None
    assert found.containerd_socket is None


@contextmanager
def _somebody_else() -> Iterator[None]:
    # What access(2) asks is the real user, what opens a file the effective one.
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
