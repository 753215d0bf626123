"""Commands of the README and of docs/ that need an engine, a Prefect server or programs of the machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.engine import Engine
from local_stack.git_server import git_server
from local_stack.ports import free_port, listens
from local_stack.prefect_server import PrefectServer, client_environment, prefect_server
from soci_pipeline.machine.programs import background, run
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import serving
from soci_pipeline.verification.verify import verify
from tests.support.documentation import REPOSITORY, Block, documented
from tests.support.file_server import serving_files
from tests.support.tars import noise
from tests.support.webhook import until

pytestmark = pytest.mark.timeout(900)

_POOLS = ("soci-amd64", "soci-arm64", "soci-control")
_VENV = Path(".venv/bin")


@dataclass(frozen=True)
class Installed:
    """A server that was prepared, and workers that were started, by the commands of docs/get-started.md."""

    server: PrefectServer
    registry: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def installed(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    if not (REPOSITORY / _VENV / "prefect").exists():
        pytest.skip("the README's commands are in .venv, and these tests run from elsewhere")
    folder = tmp_path_factory.mktemp("readme")
    with ExitStack() as stack:
        registry = stack.enter_context(serving(folder / "registry"))
        server = stack.enter_context(prefect_server(folder / "prefect", env=engine.env))
        path = f"{REPOSITORY / _VENV}{os.pathsep}{server.env['PATH']}"
        env = (
            dict(server.env) | {"PATH": path} | {"HOME": str(folder), "SOCI_PIPELINE_WORK_FOLDER": str(folder / "work")}
        )
        if engine.private:
            env["SOCI_PIPELINE_BUILD_NETWORK"] = "host"
        address = {"http://your-prefect-server:4200/api": server.api_url}
        documented("docs/get-started.md", "export PREFECT_API_URL=").run(REPOSITORY, replacing=address, env=env)
        documented("docs/get-started.md", ".venv/bin/soci-pipeline setup").run(REPOSITORY, env=env, timeout=600)
        workers = documented("docs/get-started.md", ".venv/bin/prefect worker start --pool soci-amd64").commands()
        for number, command in enumerate(workers):
            log = folder / f"worker-{number}.log"
            stack.enter_context(background(["bash", "-c", f"exec {command}"], cwd=REPOSITORY, env=env, log=log))
        with PrefectApi(server.api_url) as api:
            until(lambda: all(api.online_workers(pool) for pool in _POOLS), seconds=300)
        yield Installed(server=server, registry=registry, env=env)


def test_the_documented_server_is_waited_for_as_the_page_says(tmp_path: Path) -> None:
    start = "PREFECT_SERVER_ANALYTICS_ENABLED=false .venv/bin/prefect server start"
    assert f"`{start}`" in (REPOSITORY / "docs" / "get-started.md").read_text()
    if not (REPOSITORY / _VENV / "prefect").exists():
        pytest.skip("the README's commands are in .venv, and these tests run from elsewhere")
    port = free_port()
    env = client_environment(f"http://127.0.0.1:{port}/api", tmp_path / "home") | {"PREFECT_SERVER_API_PORT": str(port)}
    with background(["bash", "-c", f"exec env {start}"], cwd=REPOSITORY, env=env, log=tmp_path / "server.log"):
        documented("docs/get-started.md", ".venv/bin/soci-pipeline setup").run(REPOSITORY, env=env, timeout=600)


def _shop(folder: Path) -> Path:
    """A work tree with an image that needs no base image."""
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY data.bin /data.bin\n")
    (folder / "data.bin").write_bytes(noise(11 << 20))
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "--all"], [*who, "commit", "-q", "-m", "The first"]):
        run(["git", *arguments], cwd=folder)
    return folder


def test_the_readmes_first_commands_publish_an_example_to_a_registry(engine: Engine, tmp_path: Path) -> None:
    if not (REPOSITORY / _VENV / "prefect").exists():
        pytest.skip("the README's commands are in .venv, and these tests run from elsewhere")
    env = dict(engine.env) | {"HOME": str(tmp_path), "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work")}
    if engine.private:
        env["SOCI_PIPELINE_BUILD_NETWORK"] = "host"
    port = free_port()
    address = f"127.0.0.1:{port}"
    _, serve, publish = documented("README.md", ".venv/bin/soci-pipeline publish examples/buildx").commands()
    serve = f"exec {serve.removesuffix('&')} --port {port}"
    with background(["bash", "-c", serve], cwd=REPOSITORY, env=env, log=tmp_path / "registry.log"):
        until(lambda: listens(port), seconds=60)
        # A tag of its own, since a checkout with changes never gets its commit's.
        publish = publish.replace("127.0.0.1:5000", address)
        run(["bash", "-c", f"{publish} --tag dev"], cwd=REPOSITORY, env=env, timeout=600)
        with RegistryClient(address) as client:
            assert verify(client, "demo/site", "dev").ok


def test_the_documented_way_to_start_publishes_a_commit(installed: Installed, tmp_path: Path) -> None:
    with git_server(tmp_path / "git", env=installed.env) as git:
        served = git.serve(_shop(tmp_path / "shop"), "shop")
        block = documented(
            "docs/get-started.md", ".venv/bin/soci-pipeline publish https://git.example.com/shop/web.git"
        )
        registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
        _publish(installed, block, {registry: installed.registry, "https://git.example.com/shop/web.git": served.url})
    assert _tags_of_what_can_be_read(installed, "shop/web") == {served.commit[:12], "latest"}


def test_the_example_for_buildx_is_published_as_its_readme_says(installed: Installed, tmp_path: Path) -> None:
    with git_server(tmp_path / "git", env=installed.env) as git:
        served = git.serve_snapshot(REPOSITORY, "examples")
        block = documented("examples/buildx-static-site/README.md", "soci-pipeline publish")
        replacing = {"registry.example": installed.registry, "https://git.example/team/site.git": served.url}
        _publish(installed, block, replacing)
    assert _tags_of_what_can_be_read(installed, "team/site") == {served.commit[:12]}


def test_the_example_for_prebuilt_images_is_published_as_its_readme_says(installed: Installed, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "examples" / "prebuilt-script", tmp_path / "example")
    documented("examples/prebuilt-script/README.md", "for platform in").run(tmp_path / "example")
    archives = {f"/{path.name}": (200, path.read_bytes()) for path in (tmp_path / "example").glob("*.tar")}
    with git_server(tmp_path / "git", env=installed.env) as git, serving_files(archives) as files:
        served = git.serve(_shop(tmp_path / "content"), "content")
        block = documented("examples/prebuilt-script/README.md", "soci-pipeline publish")
        replacing = {
            "registry.example": installed.registry,
            "https://git.example/team/content.git": served.url,
            "https://ci.example/artifacts": files.address,
        }
        _publish(installed, block, replacing)
    assert _tags_of_what_can_be_read(installed, "team/content") == {served.commit[:12]}


def _publish(installed: Installed, block: Block, replacing: dict[str, str]) -> None:
    """Run a documented command that starts a publication and waits for its end."""
    with PrefectApi(installed.server.api_url) as api:
        before = _publications(installed)
        block.run(REPOSITORY, replacing=replacing, env=installed.env, timeout=600)
        (started,) = _publications(installed) - before
        state = api.state(started)
    assert state.is_completed, state.message


def _publications(installed: Installed) -> set[str]:
    query = {"flows": {"name": {"any_": ["publish-image"]}}}
    with PrefectApi(installed.server.api_url) as api:
        return {str(each["id"]) for each in api.list_of("/flow_runs/filter", query)}


def _tags_of_what_can_be_read(installed: Installed, repository: str) -> set[str]:
    with RegistryClient(installed.registry) as client:
        tags = set(client.tags.list(repository))
        for tag in tags:
            report = verify(client, repository, tag)
            assert report.ok
            assert [str(each.platform) for each in report.platforms] == ["linux/amd64", "linux/arm64"]
    return tags
