"""The work of `python -m local_stack demo`: publish the example through a stack, run it and fetch a page from it."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local_stack.base_image import debian_base_image
from local_stack.engine import Engine
from local_stack.git_server import Served
from local_stack.image_run import ask_for_a_page
from local_stack.prebuilt_images import prebuilt_archives, served
from local_stack.publication import Publication, publish
from local_stack.stack import PLATFORMS, Database, Stack, StackOptions, local_stack
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import SourceError, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import find
from soci_pipeline.oci.platform import Platform
from soci_pipeline.project import project_folder
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph

EXAMPLE = Path("examples/hello-web")
REPOSITORY = "demo/hello-web"
_BASE_REPOSITORY = "demo/base"


@dataclass(frozen=True, slots=True)
class DemonstrationOptions:
    """Options of the demonstration. ``not_built`` says what is not built, and why."""

    folder: Path
    builder: str
    toolchain: str
    engine: Engine | None
    not_built: str | None = None
    platforms: tuple[Platform, ...] = PLATFORMS
    database: Database = "sqlite"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """The result of the demonstration."""

    publication: Publication
    builder: str
    not_built: str | None
    page: str | None
    """The response of the service in the published image; None without an engine to run it."""
    ui: str
    docker: str | None = None
    """The docker command for this engine, also for a private one; None without an engine."""


@contextlib.contextmanager
def demonstrate(asked: DemonstrationOptions) -> Iterator[Demonstration]:
    """Publish the example and run it; the stack is up during the block."""
    tools = Toolchain()
    engine = _with_containerd_tools(asked, tools)
    options = StackOptions(engine=engine, platforms=asked.platforms, toolchain=tools, database=asked.database)
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(local_stack(asked.folder / "stack", options))
        source = _source(local)
        if asked.builder == "prebuilt":
            application = project_folder() / EXAMPLE / "app"
            archives = prebuilt_archives(asked.folder / "prebuilt", PLATFORMS, application=application, toolchain=tools)
            address = stack.enter_context(served(archives))
            parameters: dict[str, Any] = {"builder": "prebuilt", "prebuilt": f"{address}/{{platform}}.tar"}
        else:
            parameters = {"builder": asked.builder, "build_args": _build_arguments(local, tools)}
        publication = publish(local, REPOSITORY, _common(asked, source) | parameters)
        page = ask_for_a_page(engine, publication.reference) if engine and asked.builder != "prebuilt" else None
        yield Demonstration(
            publication=publication,
            builder=asked.builder,
            not_built=asked.not_built,
            page=page,
            ui=local.prefect_ui_url,
            docker=None if engine is None else _docker(engine),
        )


def _docker(engine: Engine) -> str:
    if not engine.private:
        return "docker"
    program = find("docker", package="docker-cli", env=engine.env)
    return f"DOCKER_HOST={shlex.quote(engine.docker_host)} {shlex.quote(str(program))}"


def _common(asked: DemonstrationOptions, source: Served) -> dict[str, Any]:
    # soci 0.4 in Debian supports only index version 1.
    version = "v1" if asked.toolchain == "containerd" else "v2"
    return {
        "source": source.url,
        "ref": source.commit,
        "context": str(EXAMPLE),
        "platforms": [str(platform) for platform in asked.platforms],
        "toolchain": asked.toolchain,
        "soci": {"version": version},
    }


def _source(stack: Stack) -> Served:
    """Serve the project's committed files; the files as they are if it is an unpacked archive without commits."""
    project = project_folder()
    try:
        return stack.git.serve(project, "source", used=str(EXAMPLE))
    except SourceError:
        logger().info("this is not a git work tree; publishing its files as they are")
        return stack.git.serve_snapshot(project, "source", message="The example")


def _build_arguments(stack: Stack, tools: Toolchain) -> Mapping[str, str]:
    """Return the base image by digest in the stack's registry; nothing if it cannot be built.

    The Dockerfile's public base image is used then.
    """
    try:
        base = debian_base_image(tools, PLATFORMS)
    except ToolMissing as error:
        logger().info("using a public base image: %s", error.reason)
        return {}
    root = base.root()
    with RegistryClient(stack.registry) as client:
        push_graph(base, root, client, _BASE_REPOSITORY, tag="python")
    return {"BASE": f"{stack.registry}/{_BASE_REPOSITORY}@{root.digest}"}


def _with_containerd_tools(asked: DemonstrationOptions, tools: Toolchain) -> Engine | None:
    """Return the engine with an environment in which ctr and soci are found, if they are needed."""
    if asked.engine is None or asked.toolchain != "containerd":
        return asked.engine
    path = tools.ensure(["containerd", "soci"])["PATH"]
    return replace(asked.engine, env=dict(asked.engine.env) | {"PATH": path})
