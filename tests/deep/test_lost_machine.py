"""A machine that dies in mid-branch: another worker of the pool ends the branch, and the publication completes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local_stack.stack import Stack
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from tests.support import publications as seen
from tests.support.queued import write_tiny_images

pytestmark = pytest.mark.timeout(900)
I386 = Platform("linux", "386")


class _Held(ThreadingHTTPServer):
    """Serves one archive; the first who asks for it gets nothing."""

    daemon_threads = True

    def __init__(self, archive: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archive = archive
        self.asked = threading.Event()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{{platform}}.tar"


class _Handler(BaseHTTPRequestHandler):
    server: _Held

    def do_GET(self) -> None:
        first = not self.server.asked.is_set()
        self.server.asked.set()
        if first:
            self.server.released.wait(600)
            return
        content = self.server.archive.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def held(archive: Path) -> Iterator[_Held]:
    with _Held(archive) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def test_another_worker_ends_a_branch_whose_machine_died(stack: Stack, tmp_path: Path) -> None:
    source = stack.git.serve_snapshot(write_tiny_images(tmp_path / "images", [I386]), "source")
    with (
        seen.worker_of_its_own(stack, tmp_path / "worker", I386) as machine,
        held(tmp_path / "images" / "linux-386.tar") as archives,
    ):
        environment = seen.environment_of(machine)
        run_id = seen.start(
            stack,
            {
                "image": f"{stack.registry}/lost/app",
                "source": source.url,
                "builder": "prebuilt",
                "prebuilt": archives.url,
                "platforms": [str(I386)],
                "tags": ["latest"],
            },
        )
        assert archives.asked.wait(400), "the branch fetches its image"
        (first,) = seen.branches(stack, run_id)
        seen.kill_machine(machine)
        with seen.started_again(machine, environment):
            seen.completes(stack, run_id)
        (second,) = set(seen.branches(stack, run_id)) - {first}
        states = {run: seen.ask(stack, f"/flow_runs/{run}")["state_type"] for run in (first, second)}
        assert states == {first: "CRASHED", second: "COMPLETED"}
    with RegistryClient(stack.registry) as registry:
        assert registry.tags.list("lost/app") == ("latest",)
