"""A worker whose instance is taken back in mid-branch: another one ends the same run, and the publication notices
nothing but a longer wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from soci_pipeline.aws.auto_scaling import GroupInstance, client
from soci_pipeline.aws.instance_metadata import InstanceMetadata
from soci_pipeline.capacity.agent import Agent
from soci_pipeline.capacity.machine import Machine
from soci_pipeline.local.stack import Stack, local_stack
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_api import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from tests.support import publications as seen
from tests.support.auto_scaling import emulated_aws, instances, make_group
from tests.support.capacity import metadata_service
from tests.support.queued import write_tiny_images

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
AMD64 = Platform("linux", "amd64")


@pytest.fixture(scope="module")
def shop(
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack of this test's own, since a worker of it is killed."""
    with ExitStack() as block:
        with or_skip():
            folder = tmp_path_factory.mktemp("interrupted")
            started = block.enter_context(local_stack(folder, engine=None, toolchain=toolchain, platforms=[AMD64]))
        yield started


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
    shop: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "example")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    worker = shop.workers["soci-amd64"]
    environment = seen.environment_of(worker)
    folder = tmp_path / "run"
    folder.mkdir()
    source = shop.git.serve_snapshot(write_tiny_images(tmp_path / "images"), "source")
    with (
        held(tmp_path / "images" / "linux-amd64.tar") as archives,
        metadata_service() as service,
        InstanceMetadata(service.url) as metadata,
        PrefectApi(shop.prefect_api_url) as api,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", emulated_aws())
        scaling = make_group(emulated_aws(), desired=1)
        service.answers["instance-id"] = instances(scaling)[0]["InstanceId"]
        agent = Agent(
            metadata, GroupInstance(metadata.instance_id(), client()), Machine(worker.home / "work"), api, folder
        )
        run_id = seen.start(
            shop,
            {
                "image": f"{shop.registry}/interrupted/app",
                "source": source.url,
                "builder": "prebuilt",
                "prebuilt": archives.url,
                "platforms": ["linux/amd64"],
                "tags": ["latest"],
                "worker_wait": 300,
            },
        )
        assert archives.asked.wait(400), "the branch fetches its image"
        (branch,) = seen.branches(shop, run_id)
        agent.step()
        assert instances(scaling)[0]["ProtectedFromScaleIn"], "it is busy"

        service.interrupt()
        assert agent.step()
        worker.process.wait()
        assert not seen.processes_of_run(branch)
        assert seen.ask(shop, f"/flow_runs/{branch}")["state"]["name"] == "AwaitingRetry"

        with seen.started_again(worker, environment):
            state = seen.end_of(shop, run_id, seconds=400)
        assert state.is_completed, state
        assert seen.branches(shop, run_id) == (branch,), "the same run, not a second one"
        assert seen.ask(shop, f"/flow_runs/{branch}")["run_count"] == 2
    with RegistryClient(shop.registry) as registry:
        assert registry.list_tags("interrupted/app") == ("latest",)
