"""Run a private Docker engine in the foreground, for a machine that has none.

Needs root on Debian or Ubuntu. Nothing is installed system-wide: the programs are unpacked in .toolchain, and images
and caches stay in FOLDER for the next start. The engine has no network of its own, so builds and containers use that of
the machine. Ctrl-C or SIGTERM stops the engine and every container.

While it runs, FOLDER/environment sets the variables that use it. In another shell: source FOLDER/environment

Exit statuses: 0 stopped; 7 a tool is missing, or not root; 22 it did not start, or another one runs in FOLDER.
"""

import contextlib
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import click

from local_stack.engine import Engine, private_engine
from local_stack.folder_lock import folder_lock
from local_stack.toolchain import Toolchain
from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.commands.signals import Ended, ending_on_signals
from soci_pipeline.errors import StackError
from soci_pipeline.log import logger
from soci_pipeline.project import project_folder

# PATH is extended instead. The rest of the engine's environment is this process's own, or marks what ends with it.
_VARIABLES = ("DOCKER_HOST", "DOCKER_CONFIG", "CONTAINERD_ADDRESS", "LD_LIBRARY_PATH")


@command(__doc__)
@click.option("--folder", type=FILE_PATH, metavar="FOLDER", help="its data folder  [default: .local/engine]")
def run(arguments: Arguments) -> CommandResult:
    folder = (arguments.folder or project_folder() / ".local" / "engine").absolute()
    tools = Toolchain()
    with _held(folder), ending_on_signals(), private_engine(folder / "engine", toolchain=tools) as engine:
        environment = folder / "environment"
        environment.write_text(_exports(engine, tools))
        answer = {"docker_host": engine.docker_host, "environment": str(environment)}
        try:
            # From here on, Ctrl-C is the expected end.
            with contextlib.suppress(Ended):
                CommandResult(answer, f"source {shlex.quote(str(environment))}").show(as_json=arguments.json)
                logger().info("the engine runs until Ctrl-C; run the line above in each shell that uses it")
                signal.pause()
        finally:
            environment.unlink(missing_ok=True)
    return CommandResult(json=None)


def _exports(engine: Engine, tools: Toolchain) -> str:
    """The shell commands that make a shell use the engine."""
    lines = [f'export PATH={shlex.quote(str(tools.bin))}:"$PATH"']
    values = {name: engine.env[name] for name in _VARIABLES if name in engine.env}
    # The engine has no bridge.
    values["SOCI_PIPELINE_BUILD_NETWORK"] = "host"
    lines += [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder; raises `StackError` if another engine runs in it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder_lock(folder, wait=False))
        except BlockingIOError as error:
            advice = f"Use it: source {folder / 'environment'}. Or stop it with Ctrl-C in its terminal."
            raise StackError(f"another private engine runs in {folder}", advice=advice) from error
        yield
