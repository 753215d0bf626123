"""The `soci-pipeline` command: finds a command's module, runs it and prints its result; the only place that exits.

Progress and errors go to standard error; the result goes to standard output, as text or, with ``--json``, as one JSON
object. Exit statuses are `soci_pipeline.errors.ExitCode`.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

import click

from soci_pipeline._version import __version__
from soci_pipeline.commands import discard_output, write_out
from soci_pipeline.commands.command import COMPLETION_VARIABLE, Call, LazyGroup
from soci_pipeline.errors import DiskFull, ExitCode, InvalidInput, SociPipelineError
from soci_pipeline.full_disk import FULL
from soci_pipeline.text import for_terminal

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor:run", "show what this machine can do, and how to fix what is missing"),
    "setup": ("setup:run", "create work pools, limits, automations and blocks in Prefect"),
    "publish": ("publish:run", "build, index, push, join, verify and tag an image"),
    "convert": ("convert:run", "index every layer of an OCI layout or archive that qualifies"),
    "index": ("index:run", "index an image that is already in a registry"),
    "push": ("push:run", "push an OCI layout to a registry"),
    "join": ("join:run", "join images of several platforms into one image index"),
    "inspect": ("inspect:run", "show the parts of an image"),
    "verify": ("verify:run", "verify a published image through its SOCI indexes"),
    "prune": ("prune:run", "delete everything from a repository that no kept tag needs"),
    "ztoc": ("ztoc:run", "write the zTOC of one layer"),
    "ztoc-info": ("ztoc_info:run", "show the contents of a zTOC"),
    "ztoc-get-file": ("ztoc_get_file:run", "extract one file of a layer using only its zTOC"),
    "registry": ("registry:run", "serve a folder as an OCI registry"),
    "webhook": ("webhook:webhook", "receive signed webhook events and start publications"),
    "explain": ("explain:run", "explain an error and what to do about it"),
    "completion": ("completion:run", "print the completion script of a shell"),
}
"""Every command: its location below `soci_pipeline.commands` as ``module:attribute``, and its line in the overview."""

_PROGRAM = "soci-pipeline"
_INTERRUPTED = 128 + signal.SIGINT


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        write_out(f"{_PROGRAM} {__version__}\n".encode())
        context.exit()


def _show_commands(**_: bool) -> None:
    """Show the help on standard error if no command is given."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        raise click.exceptions.NoArgsIsHelpError(context)


GROUP = LazyGroup(
    _PROGRAM,
    "soci_pipeline.commands",
    COMMANDS,
    help="Publish multi-architecture, SOCI-indexed container images.",
    epilog="`soci-pipeline COMMAND --help` shows the options of one command.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="show the version",
        )
    ],
    callback=_show_commands,
    invoke_without_command=True,
)


def main(
    argv: Sequence[str] | None = None, *, group: LazyGroup = GROUP, imported: Callable[[], None] = lambda: None
) -> int:
    """Run one command of a group; return its exit status. ``imported`` is called first, once its module is imported.

    Raises `SystemExit` after printing help or the version.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(given, group, imported)
    except KeyboardInterrupt:
        if "--json" in given:
            _print_failure("Interrupted", "interrupted", None, _INTERRUPTED)
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _run(given: list[str], group: LazyGroup, imported: Callable[[], None]) -> int:
    try:
        call = _parsed(given, group)
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.UsageError as error:
        return _report_usage(error, as_json="--json" in given)
    # Imported before `imported` is called; the help does not need them.
    from soci_pipeline.commands import log_display, progress_display

    log_display.log_to_stderr(verbose=call.arguments.verbose, quiet=call.arguments.quiet)
    imported()
    return _answer(call, group.program, shown=progress_display.progress_shown(quiet=call.arguments.quiet))


def _parsed(given: list[str], group: LazyGroup) -> Call:
    # Not `group.main`, which handles Ctrl-C and a closed pipe differently.
    with group.make_context(group.program, given) as context:
        call: Call = group.invoke(context)
        return call


def entry(*, imported: Callable[[], None] = lambda: None) -> NoReturn:
    """Run the command line of this process, and exit with its status."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    try:
        try:
            status = main(imported=imported) if instruction is None else _complete(instruction)
        except SystemExit as end:
            # Help or the version was printed.
            status = int(end.code or 0)
        write_out(b"")
    except SociPipelineError as error:
        status = _report(error, _PROGRAM, path=None, as_json=False)
    except BrokenPipeError:
        # The reader has closed the pipe.
        discard_output()
        status = 128 + signal.SIGPIPE
    if status == _INTERRUPTED:
        # Python would exit by the signal if it arrived while `exec` ran source code (as data classes do).
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _complete(instruction: str) -> int:
    """Answer a request of a completion script."""
    from soci_pipeline.commands.completion import write_completions

    write_completions(GROUP, instruction)
    return ExitCode.OK


def _answer(call: Call, program: str, *, shown: AbstractContextManager[None]) -> int:
    arguments = call.arguments
    try:
        with shown:
            result = call.run(arguments)
        result.show(as_json=arguments.json)
    except SociPipelineError as error:
        return _report(error, program, path=call.path, as_json=arguments.json)
    except OSError as error:
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        return _report(_about_a_file(error), program, path=call.path, as_json=arguments.json)
    return result.exit_code


def _about_a_file(error: OSError) -> SociPipelineError:
    """Return the error for an operating system error about a file that the user named, or one below it."""
    kind = DiskFull if error.errno in FULL else InvalidInput
    return kind(f"{error.filename}: {error.strerror}", advice="Check the path and its permissions.")


def _report(error: SociPipelineError, program: str, *, path: str | None, as_json: bool) -> int:
    advice = error.advice
    if advice is None and path is not None and isinstance(error, InvalidInput):
        advice = f"`{path} --help` shows its arguments."
    if as_json:
        _print_failure(type(error).__name__, "\n".join([error.reason, *error.links]), advice, error.exit_code)
    explained = f"  more: {_PROGRAM} explain {type(error).__name__}"
    said = [f"{program}: {error.reason}", *([f"  next: {advice}"] if advice else []), *error.links, explained]
    print(for_terminal("\n".join(said)), file=sys.stderr)
    return error.exit_code


def _report_usage(error: click.UsageError, *, as_json: bool) -> int:
    """Show a usage error in click's own words, which refer to the help."""
    if as_json and not isinstance(error, click.exceptions.NoArgsIsHelpError):
        path = error.ctx.command_path if error.ctx is not None else _PROGRAM
        _print_failure("UsageError", error.format_message(), f"`{path} --help` shows its arguments.", ExitCode.USAGE)
    error.show(sys.stderr)
    return ExitCode.USAGE


def _print_failure(error: str, reason: str, advice: str | None, status: int) -> None:
    fields = {"error": error, "reason": reason, "advice": advice, "exit_code": int(status)}
    print(json.dumps(fields, indent=2))
