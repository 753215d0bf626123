"""A flow image that the build step of `prefect.yaml` has published, run in a container by Prefect's docker worker."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from local_stack.base_image import debian_base_image
from local_stack.engine import Engine
from local_stack.ports import wait_until
from local_stack.prefect_server import client_environment
from local_stack.stack import Stack
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import background, run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from tests.support import publications as seen
from tests.support.documentation import REPOSITORY, blocks

pytestmark = pytest.mark.timeout(900)

NATIVE = Platform.native().normalised()
POOL = "containers"
UV = REPOSITORY / ".toolchain" / "uv" / "bin" / "uv"
PINS = REPOSITORY / "requirements" / "docker-worker.txt"
FLOW = "from prefect import flow\n\n\n@flow(log_prints=True)\ndef hello():\n    print('Hello from', __file__)\n"
DOCKERFILE = """\
FROM {base}
COPY packages /opt/packages
COPY --chmod=755 prefect /usr/local/bin/prefect
COPY hello.py /opt/flows/hello.py
ENV PYTHONPATH=/opt/packages
"""


@dataclass(frozen=True)
class Project:
    """A Prefect user's project whose `prefect.yaml` is the documented one, and the image that it names."""

    folder: Path
    image: str


@pytest.fixture
def project(
    stack: Stack,
    engine: Engine,
    toolchain: Toolchain,
    tmp_path: Path,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Project:
    with or_skip():
        layout = debian_base_image(toolchain, (NATIVE,))
    with RegistryClient(stack.registry) as client:
        push_graph(layout, layout.root(), client, "team/base", tag="1")
    base = f"{stack.registry}/team/base@{layout.root().digest}"
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "hello.py").write_text(FLOW)
    (folder / "prefect").write_text('#!/bin/sh\nexec python3 -m prefect "$@"\n')
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base))
    _packages(folder / "packages", _python_of(engine, base))
    (folder / "prefect.yaml").write_text(yaml.safe_dump(_documented_project(f"{stack.registry}/team/flows")))
    return Project(folder, f"{stack.registry}/team/flows:v1")


def _python_of(engine: Engine, image: str) -> str:
    """The version of the Python in an image, as 3.11."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    argv = ["docker", "run", "--rm", "--network", "host", image, "python3", "-c", program]
    return run(argv, env=engine.env, timeout=120).stdout.strip()


def _packages(folder: Path, python: str) -> None:
    """What a flow needs, for another Python than this one's too: the image has no pip."""
    foreign = ["--python-version", python, "--only-binary", ":all:", "--target", str(folder)]
    run(
        [UV, "pip", "install", "--quiet", "--python", sys.executable, *foreign, "--require-hashes", "-r", PINS],
        timeout=300,
    )


def _documented_project(image_name: str) -> Mapping[str, object]:
    (shown,) = [block.text for block in blocks(REPOSITORY / "docs" / "flow-images.md") if block.language == "yaml"]
    document: dict[str, list[dict[str, dict[str, object]]]] = yaml.safe_load(shown)
    (step,) = document["build"][0].values()
    step |= {"image_name": image_name, "platforms": [str(NATIVE)], "tag": "v1"}
    work_pool = document["deployments"][0]["work_pool"]
    assert work_pool["job_variables"] == {"image": "{{ built.image }}"}
    # The engine of the tests has no bridge.
    work_pool |= {"name": POOL, "job_variables": {"image": "{{ built.image }}", "network_mode": "host"}}
    return document


@pytest.fixture
def docker_worker(stack: Stack, engine: Engine, tmp_path: Path) -> Iterator[None]:
    """A worker of the type `docker` in an environment of its own; it makes its pool, and polls it."""
    environment = tmp_path / "environment"
    run([UV, "venv", "--quiet", "--python", sys.executable, environment])
    run([UV, "pip", "install", "--quiet", "--python", environment, "--require-hashes", "-r", PINS], timeout=300)
    options = ["--pool", POOL, "--type", "docker", "--name", "docker", "--install-policy", "never"]
    argv: list[str | Path] = [environment / "bin" / "prefect", "worker", "start", *options]
    env = client_environment(stack.prefect_api_url, tmp_path / "home", env=engine.env) | {"PYTHONPATH": ""}
    log = tmp_path / "worker.log"
    with background(argv, env=env, cwd=tmp_path, log=log) as child, PrefectApi(stack.prefect_api_url) as api:
        wait_until(lambda: "docker" in api.online_workers(POOL), what="the worker", child=child, log=log, seconds=240)
        yield
        print(log.read_text())


@pytest.mark.usefixtures("docker_worker")
def test_a_docker_worker_runs_the_image_that_prefect_deploy_has_built(
    stack: Stack, engine: Engine, project: Project, tmp_path: Path
) -> None:
    env = {**stack.env, "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work")}
    deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    run(deploy, env=env, cwd=project.folder, timeout=600)
    with PrefectApi(stack.prefect_api_url) as api, _removed(engine, project.image):
        run_id = api.create_run("hello/hello", {})
        state = seen.end_of(stack, run_id)
        with _container(stack, engine, run_id) as container:
            assert state.is_completed, state
            assert _inspected(engine, container, "{{.Config.Image}}") == project.image
            assert run(["docker", "wait", container], env=engine.env, timeout=120).stdout.strip() == "0"
        assert any("Hello from /opt/flows/hello.py" in text for _, text in api.log_lines(run_id, offset=0))


@contextmanager
def _container(stack: Stack, engine: Engine, run_id: str) -> Iterator[str]:
    """The container of a flow run, as the worker has noted it."""
    container = str(seen.ask(stack, f"/flow_runs/{run_id}")["infrastructure_pid"]).rpartition(":")[2]
    try:
        yield container
    finally:
        print(run(["docker", "logs", container], env=engine.env).stdout)
        run(["docker", "rm", "--force", "--volumes", container], env=engine.env, timeout=120)


def _inspected(engine: Engine, container: str, template: str) -> str:
    return run(["docker", "inspect", "--format", template, container], env=engine.env).stdout.strip()


@contextmanager
def _removed(engine: Engine, image: str) -> Iterator[None]:
    try:
        yield
    finally:
        run(["docker", "image", "rm", "--force", image], env=engine.env)
