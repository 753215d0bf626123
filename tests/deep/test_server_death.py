"""The Prefect server dies in mid-publish and comes back: the run ends well, or with a cause; publishing again repeats.

Nothing is built here: the image is fetched from a server that gives it out only when it is told to, so that the moment
is certain.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local_stack.ports import answers
from local_stack.stack import Stack, StackOptions, local_stack
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.verification.verify import verify
from tests.support import publications as seen
from tests.support.archives import oci_archive
from tests.support.git_repositories import repository
from tests.support.images import AMD64, image_layout
from tests.support.webhook import until

pytestmark = [pytest.mark.first, pytest.mark.timeout(900)]

REPOSITORY = "death/app"


@dataclass
class SlowFile:
    """A file over HTTP: its first byte at once, a few more as time passes, the rest when it is released."""

    data: bytes
    asked: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        file = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(file.data)))
                self.end_headers()
                file.asked.set()
                position = 0
                # The client gives up where nothing comes for a minute.
                while not file.released.wait(5) and position < len(file.data) - 1:
                    self.wfile.write(file.data[position : position + 1])
                    position += 1
                self.wfile.write(file.data[position:])

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Nothing is to be seen of it."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/image.tar"
            finally:
                self.released.set()
                server.shutdown()
                thread.join()


def test_a_server_that_dies_in_mid_publish_and_comes_back_costs_nothing_or_a_failure_with_a_cause(
    tmp_path: Path, prepared: Path
) -> None:
    archive = oci_archive(tmp_path / "image.tar", image_layout(tmp_path / "image", AMD64))
    image = SlowFile(archive.read_bytes())
    with contextlib.ExitStack() as later:
        address = later.enter_context(image.served())
        # What is started again is stopped after the workers, as the first server would be.
        again = later.enter_context(contextlib.ExitStack())
        options = StackOptions(platforms=(AMD64,), deployed=prepared)
        stack = later.enter_context(local_stack(tmp_path / "stack", options))
        served = stack.git.serve(repository(tmp_path / "app").path, "app")
        parameters = {
            "image": f"{stack.registry}/{REPOSITORY}",
            "source": served.url,
            "builder": "prebuilt",
            "prebuilt": address,
            "platforms": ["linux/amd64"],
            "tags": ["latest"],
            "soci": {"min_layer_size": 0, "span_size": 65536},
        }
        run_id = seen.start(stack, parameters)
        until(image.asked.is_set, seconds=240)
        (branch,) = seen.branches(stack, run_id)
        argv, environment = seen.kill_server(stack)
        assert not answers(f"{stack.prefect_api_url}/health")
        again.enter_context(seen.server_again(stack, argv, environment))
        image.released.set()

        state = seen.end_of(stack, run_id, seconds=400)
        first = _digest_of(stack)
        assert state.is_completed is (first is not None), state
        assert state.is_completed or state.message
        until(lambda: not seen.processes_of_run(branch), seconds=60)

        seen.completed(stack, parameters)
        published = _digest_of(stack)
        assert published is not None
        assert first in (None, published)
        assert list((stack.workers["soci-amd64"].home / "work" / "runs").iterdir()) == []


def _digest_of(stack: Stack) -> Digest | None:
    """What the tag points at, read through."""
    with RegistryClient(stack.registry) as client:
        found = client.manifests.head(REPOSITORY, "latest")
        if found is not None:
            assert verify(client, REPOSITORY, "latest", mode="all").ok
    return None if found is None else found.digest
