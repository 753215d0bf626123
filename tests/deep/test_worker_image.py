"""The image of a worker, published by the pipeline that it will work for, and at work in a container."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from local_stack.engine import Engine
from local_stack.stack import Stack
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform
from tests.support import publications as seen
from tests.support.documentation import documented
from tests.support.webhook import until
from tests.support.worker_base import worker_base

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can bootstrap a base image"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
POOL = "in-a-container"


@pytest.fixture(scope="module")
def base(
    engine: Engine,
    toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Iterator[str]:
    """A Debian 13 with Python in the engine, bootstrapped here, which knows this machine's way to the packages."""
    with ExitStack() as stack:
        with or_skip():
            name = stack.enter_context(worker_base(engine, toolchain, tmp_path_factory.mktemp("base")))
        yield name


@pytest.fixture(scope="module")
def image(stack: Stack, engine: Engine, base: str) -> Iterator[str]:
    """The worker's image of this machine's platform, from what is committed here."""
    source = stack.git.serve(REPOSITORY, "soci-pipeline")
    parameters = {
        "image": f"{stack.registry}/platform/soci-worker",
        "source": source.url,
        "dockerfile": "deployments/worker-image/Dockerfile",
        "build_args": {"BASE": base},
        "builder": "buildx",
        "platforms": [str(Platform.native().normalised())],
        "tags": ["v1"],
    }
    run_id = seen.start(stack, parameters)
    state = seen.end_of(stack, run_id, seconds=1200)
    assert state.is_completed, state
    (record,) = seen.records(stack, run_id)
    assert any(layer.ztoc for layer in record.layers), "the layer of the packages is worth indexing"
    reference = f"{parameters['image']}:v1"
    run(["docker", "pull", "--quiet", reference], env=engine.env, timeout=300)
    yield reference
    run(["docker", "image", "rm", "--force", reference], env=engine.env)


def test_a_worker_of_the_image_carries_out_a_run(stack: Stack, engine: Engine, image: str, tmp_path: Path) -> None:
    seen.ask(stack, "/work_pools/", {"name": POOL, "type": "process"})
    deployment = seen.copy_deployment(stack, "verify-image/verify", name=POOL, pool=POOL)
    settings = tmp_path / "worker.env"
    settings.write_text(f"PREFECT_API_URL={stack.prefect_api_url}\nPREFECT_WORKER_QUERY_SECONDS=1\n")
    with _worker(engine, image, settings, tmp_path):
        until(lambda: _is_online(stack), seconds=120)
        created = seen.ask(
            stack, f"/deployments/{deployment}/create_flow_run", {"parameters": {"reference": image, "mode": "all"}}
        )
        state = seen.end_of(stack, created["id"])
    assert state.is_completed, state


def test_it_runs_as_an_ordinary_user_with_what_a_build_needs(engine: Engine, image: str) -> None:
    script = "id -u; docker buildx version; git --version; soci-pipeline --version"
    said = run(
        ["docker", "run", "--rm", "--network", "host", "--entrypoint", "sh", image, "-c", script], env=engine.env
    )
    assert said.stdout.startswith("10001\n")
    assert "buildx" in said.stdout
    assert "git version" in said.stdout


@contextmanager
def _worker(engine: Engine, image: str, settings: Path, folder: Path) -> Iterator[None]:
    """The documented way to start it for the control pool, with this pool's name instead."""
    name = f"soci-worker-{secrets.token_hex(4)}"
    documented(
        "deployments/worker-image/README.md", "docker run --detach --restart unless-stopped --env-file worker.env reg"
    ).run(
        folder,
        replacing={
            "--restart unless-stopped": f"--name {name} --network host",
            "worker.env": str(settings),
            "registry.example.com/platform/soci-worker:3f1c2d7a90be": f"{image} --pool {POOL}",
        },
        env=engine.env,
    )
    try:
        yield
    finally:
        print(run(["docker", "logs", name], env=engine.env).stdout)
        run(["docker", "rm", "--force", "--volumes", name], env=engine.env, timeout=120)


def _is_online(stack: Stack) -> bool:
    found = seen.ask(stack, f"/work_pools/{POOL}/workers/filter", {})
    return any(worker["status"] == "ONLINE" for worker in found)
