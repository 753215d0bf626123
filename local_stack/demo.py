"""Publish an example for linux/amd64 and linux/arm64 through the real flow, in a stack started for it on this machine.

Starts a Prefect server, a registry, a git server, three workers and, where no Docker engine runs, a private one from
unpacked Debian packages (as root on Debian or Ubuntu). At the end the image of this machine's platform is run from the
registry and asked for a page. Without any engine, images are put together from wheels instead of being built, and the
answer says so. With --database postgres the server keeps its state in PostgreSQL from Debian's package, as a production
server does, instead of SQLite. Everything that was started is stopped again; fetched tools stay in .toolchain.

Exit statuses: 0 published; 7 a tool is missing; 9 the engine does not answer; 20 the flow run failed; 22 a part of the
stack did not start, or another demo is at work; 130 interrupted (with --keep, Ctrl-C after the answer is the end that
is wanted: 0).
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from local_stack.demonstration import DemonstrationOptions, demonstrate
from local_stack.demonstration_text import as_json, as_text
from local_stack.engine import Engine, running_engine
from local_stack.folder_lock import folder_lock, remove_held
from local_stack.toolchain import Toolchain
from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.signals import Ended, ending_on_signals
from soci_pipeline.errors import EngineUnavailable, InvalidInput, StackError, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.oci.platform import Platform
from soci_pipeline.project import project_folder

_BUILDERS = tuple(each.value for each in BuilderName)
_TOOLCHAINS = ("native", "containerd")
_DATABASES = ("sqlite", "postgres")


@command(__doc__)
@click.option(
    "--builder",
    type=click.Choice([each.value for each in BuilderName]),
    default="auto",
    help="the tool that builds the images",
)
@click.option("--toolchain", type=click.Choice(_TOOLCHAINS), default="native", help="the tool that indexes them")
@click.option(
    "--database",
    type=click.Choice(_DATABASES),
    default="sqlite",
    help="the database of the Prefect server; postgres is installed from Debian's package",
)
@click.option("--keep", is_flag=True, help="keep the stack running until Ctrl-C, with its data")
def run(arguments: Arguments) -> CommandResult:
    started = time.monotonic()
    folder = project_folder() / ".local" / "demo"
    with (
        _demo_lock(folder),
        _removed(folder, keep=arguments.keep),
        ending_on_signals(),
        contextlib.ExitStack() as stack,
    ):
        engine, missing = _engine(arguments.builder, folder, stack)
        options = DemonstrationOptions(
            folder=folder,
            builder=arguments.builder if engine else "prebuilt",
            toolchain=arguments.toolchain,
            engine=engine,
            not_built=missing,
            database=arguments.database,
        )
        if options.builder == "docker" and engine is not None and engine.containerd_image_store:
            options = _only_native_platform(options)
        if options.toolchain == "containerd" and engine is None:
            raise InvalidInput("the toolchain containerd requires an engine, but there is none", advice=missing)
        result = stack.enter_context(demonstrate(options))
        elapsed = time.monotonic() - started
        answer = CommandResult(as_json(result, elapsed), as_text(result, elapsed, still_up=arguments.keep))
        if not arguments.keep:
            return answer
        # After the answer, Ctrl-C is the regular end.
        with contextlib.suppress(Ended):
            answer.show(as_json=arguments.json)
            logger().info("the stack stays up until Ctrl-C; Prefect's UI: %s", result.ui)
            logger().info("to use its API from another terminal: export PREFECT_API_URL=%s/api", result.ui)
            signal.pause()
    logger().info("its data stays in %s until the next demo", folder)
    return CommandResult(json=None)


def _engine(builder: str, folder: Path, stack: contextlib.ExitStack) -> tuple[Engine | None, str | None]:
    """Return the engine, or the reason why there is none; raise if the requested builder needs one."""
    if builder == "prebuilt":
        return None, "the builder `prebuilt` was requested"
    try:
        return stack.enter_context(running_engine(folder / "engine", toolchain=Toolchain())), None
    except (ToolMissing, EngineUnavailable) as error:
        if builder != "auto":
            raise
        logger().warning("nothing can be built on this machine: %s", error.reason)
        return None, error.reason


def _only_native_platform(options: DemonstrationOptions) -> DemonstrationOptions:
    """Limit the platforms to this machine's: on the containerd image store, the classic builder supports no others."""
    native = Platform.native().normalised()
    reason = f"on this engine the builder `docker` builds only for {native}; `buildx` builds for both platforms"
    logger().warning("%s", reason)
    return replace(options, platforms=(native,), not_built=reason)


@contextlib.contextmanager
def _demo_lock(folder: Path) -> Iterator[None]:
    """Lock the folder; raise `StackError` if another demo holds it, possibly for hours."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(folder, wait=False))
        except BlockingIOError as error:
            raise StackError(
                f"another demo is running in {folder}",
                advice="Wait until it finishes, or stop it with Ctrl-C in its terminal.",
            ) from error
        yield


@contextlib.contextmanager
def _removed(folder: Path, *, keep: bool) -> Iterator[None]:
    """Remove the stack's data at the end, but keep it after a failure for its logs."""
    try:
        yield
    except KeyboardInterrupt:
        if not keep:
            remove_held(folder)
        raise
    if not keep:
        remove_held(folder)
