"""A worker whose instance is taken back in mid-branch: another one ends the same run, and the publication notices
nothing but a longer wait."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from soci_pipeline.aws.auto_scaling import GroupInstance, client
from soci_pipeline.aws.instance_metadata import InstanceMetadata
from soci_pipeline.capacity.agent import Agent
from soci_pipeline.capacity.machine import Machine
from soci_pipeline.local.stack import Stack
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_api import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from tests.support import publications as seen
from tests.support.auto_scaling import instances, make_group
from tests.support.aws import emulator
from tests.support.capacity import metadata_service
from tests.support.queued import write_tiny_images

pytestmark = pytest.mark.timeout(900)
I386 = Platform("linux", "386")


class _Held(ThreadingHTTPServer):
    """Serves one archive; the first who asks for it gets nothing for as long as nobody lets him."""

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


def test_another_worker_ends_what_an_interrupted_instance_began(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    folder = tmp_path / "run"
    folder.mkdir()
    source = stack.git.serve_snapshot(write_tiny_images(tmp_path / "images", [I386]), "source")
    with (
        seen.worker_of_its_own(stack, tmp_path / "worker", I386) as worker,
        emulator() as address,
        held(tmp_path / "images" / "linux-386.tar") as archives,
        metadata_service() as service,
        InstanceMetadata(service.url) as metadata,
        PrefectApi(stack.prefect_api_url) as api,
    ):
        environment = seen.environment_of(worker)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        scaling = make_group(address, desired=1)
        service.answers["instance-id"] = instances(scaling)[0]["InstanceId"]
        agent = Agent(
            metadata, GroupInstance(metadata.instance_id(), client()), Machine(worker.home / "work"), api, folder
        )
        run_id = seen.start(
            stack,
            {
                "image": f"{stack.registry}/interrupted/app",
                "source": source.url,
                "builder": "prebuilt",
                "prebuilt": archives.url,
                "platforms": [str(I386)],
                "tags": ["latest"],
                "worker_wait": 300,
            },
        )
        assert archives.asked.wait(400), "the branch fetches its image"
        (branch,) = seen.branches(stack, run_id)
        agent.step()
        assert instances(scaling)[0]["ProtectedFromScaleIn"], "it is busy"

        service.interrupt()
        assert agent.step()
        worker.process.wait()
        assert not seen.processes_of_run(branch)
        assert seen.ask(stack, f"/flow_runs/{branch}")["state"]["name"] == "AwaitingRetry"

        with seen.started_again(worker, environment):
            state = seen.end_of(stack, run_id, seconds=400)
        assert state.is_completed, state
        assert seen.branches(stack, run_id) == (branch,), "the same run, not a second one"
        assert seen.ask(stack, f"/flow_runs/{branch}")["run_count"] == 2
    with RegistryClient(stack.registry) as registry:
        assert registry.list_tags("interrupted/app") == ("latest",)
