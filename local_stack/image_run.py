"""Run a published image from its registry on an engine, and fetch a page from it."""

import contextlib
import secrets
import time
from collections.abc import Iterator

import httpx

from local_stack.engine import Engine
from local_stack.ports import LOOPBACK, free_port
from soci_pipeline.errors import StackError, ToolFailed
from soci_pipeline.http_client import HttpClient, text_of
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform

_START_SECONDS = 60.0


def ask_for_a_page(engine: Engine, reference: str) -> str:
    """Pull the image of this machine's platform, run it, and return the page that it serves at ``/``.

    The container and the pulled image are removed again. Raises `StackError` if it does not answer.
    """
    native = Platform.native().normalised()
    logger().info("running %s for %s from the registry", reference, native)
    run(["docker", "pull", "--quiet", "--platform", str(native), reference], env=engine.env, timeout=600)
    try:
        port = free_port()
        with _container(engine, reference, port) as name:
            return _page(engine, name, port)
    finally:
        with contextlib.suppress(ToolFailed):
            run(["docker", "image", "rm", "--force", reference], env=engine.env, timeout=60)


@contextlib.contextmanager
def _container(engine: Engine, reference: str, port: int) -> Iterator[str]:
    name = f"soci-pipeline-demo-{secrets.token_hex(4)}"
    # Host network, because a private engine has no bridge.
    settings = ["--network", "host", "--env", f"HOST={LOOPBACK}", "--env", f"PORT={port}"]
    run(["docker", "run", "--detach", "--name", name, *settings, reference], env=engine.env, timeout=120)
    try:
        yield name
    finally:
        run(["docker", "rm", "--force", "--volumes", name], env=engine.env, timeout=60)


def _page(engine: Engine, name: str, port: int) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError), HttpClient(timeout=5, trust_env=False) as client:
            response = client.get(f"http://{LOOPBACK}:{port}/")
            if response.is_success:
                return text_of(response)
        time.sleep(0.2)
    said = run(["docker", "logs", name], env=engine.env, timeout=30)
    raise StackError(f"the published image does not answer\n{said.stdout}{said.stderr_tail}".rstrip())
