"""The `soci-pipeline` command: finds a command's module, runs it, prints its answer; the only place that exits.

Progress and errors go to standard error; the answer goes to standard output, as text or, with ``--json``, as one JSON
object. Exit statuses are `soci_pipeline.errors.ExitCode`.
"""

import argparse
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from soci_pipeline.commands import Command, add_switches, drop_output, write_out
from soci_pipeline.commands.progress_display import progress_shown
from soci_pipeline.errors import DiskFull, ExitCode, InvalidInput, SociPipelineError
from soci_pipeline.full_disk import FULL
from soci_pipeline.text import did_you_mean

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "say what this machine can do, and what to do about each lack"),
    "setup": ("setup", "make work pools, limits, automations and blocks in Prefect; can be run again"),
    "convert": ("convert", "index every layer of an OCI layout or archive that qualifies"),
    "index": ("index", "index an image that is already in a registry"),
    "push": ("push", "push an OCI layout to a registry"),
    "join": ("join", "join images of several platforms into one image index"),
    "inspect": ("inspect", "show what a reference consists of"),
    "verify": ("verify", "read through the SOCI indexes of a published image"),
    "prune": ("prune", "delete what no kept tag needs from a repository"),
    "ztoc": ("ztoc", "write the zTOC of one layer"),
    "ztoc-info": ("ztoc_info", "show what a zTOC says"),
    "ztoc-get-file": ("ztoc_get_file", "read one file of a layer through its zTOC alone"),
    "registry": ("registry", "serve a folder as an OCI registry"),
    "webhook": ("webhook", "receive signed events and start publications"),
    "completion": ("completion", "print the completion script of a shell"),
}
_INTERRUPTED = 128 + signal.SIGINT


class UsageError(SociPipelineError):
    """A call that argparse does not understand; ``usage`` is how it is called, as its help has it."""

    exit_code = ExitCode.USAGE

    def __init__(self, reason: str, *, usage: str, advice: str) -> None:
        super().__init__(reason, advice=advice)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` instead of exiting, with the option that was probably meant and where to read on.

    Options are taken by their whole names: an abbreviation would change its meaning with the next option that is added.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def _print_message(self, message: str, file: "SupportsWrite[str] | None" = None) -> None:
        """Print help and versions through `write_out`, since argparse ignores that a disk is full."""
        if message and file in (None, sys.stdout):
            write_out(message.encode())
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Turn argparse's message into an error with a next step."""
        meant = None
        _, found, unknown = message.partition("unrecognized arguments: ")
        if found:
            # argparse lists what stands behind a wrong option too, sound or not.
            wrong = [word for word in unknown.split() if word.startswith("-")] or unknown.split() or [repr(unknown)]
            message = f"unrecognized arguments: {' '.join(wrong)}"
            meant = _meant(wrong[0], self._option_string_actions) if wrong[0].startswith("-") else None
        _, found, choice = message.partition("invalid choice: '")
        if found:
            meant = _meant(choice.partition("'")[0], self._words())
        if message.startswith("the following arguments are required: "):
            meant = self._sample()
        option, lacking, _ = message.removeprefix("argument ").partition(": expected one argument")
        if lacking:
            meant = f"Give it one; where it begins with a hyphen, join the two: `{option.rpartition('/')[2]}=-…`."
        advice = meant or f"`{self.prog} --help` shows what it takes."
        raise UsageError(message, usage=self.format_usage(), advice=advice)

    def _sample(self) -> str | None:
        """A whole call, where one word of a few has to be chosen; an option that is required has no such value."""
        required = [action for action in self._actions if action.required]
        chosen = any(action.choices for action in required)
        if not chosen or any(each.option_strings or isinstance(each.choices, dict) for each in required):
            return None
        words = [str(next(iter(each.choices)) if each.choices else each.metavar or each.dest) for each in required]
        return f"For example `{' '.join([self.prog, *words])}`; `{self.prog} --help` shows what it takes."

    def _words(self) -> list[str]:
        """The words that stand for themselves: choices, and the names of actions."""
        return [str(word) for action in self._actions for word in action.choices or ()]


def parser_of(name: str) -> Parser:
    """The parser of one command, with the options that every command has."""
    command = command_of(name)
    parser = Parser(
        prog=f"soci-pipeline {name}", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configure(parser, command)
    return parser


def configure(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the options that every command has, and the command's own."""
    add_switches(parser)
    command.configure(parser)


def main(argv: Sequence[str] | None = None, *, imported: Callable[[], None] = lambda: None) -> int:
    """Run one command; returns its exit status. ``imported`` is called before it runs, once its module is there."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(given, imported)
    except KeyboardInterrupt:
        if "--json" in given:
            _print_failure("Interrupted", "interrupted", None, _INTERRUPTED)
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _run(given: Sequence[str], imported: Callable[[], None]) -> int:
    name = next((word for word in given if not word.startswith("-")), None)
    try:
        if name is None:
            _overview().parse_args([word for word in given if word != "--json"])
            _overview().print_help(sys.stderr)
            return ExitCode.USAGE
        if name not in COMMANDS:
            advice = _meant(name, [*COMMANDS, "--version"]) or "`soci-pipeline --help` lists the commands."
            raise UsageError(f"there is no command {name!r}", usage=_overview().format_usage(), advice=advice)
        position = given.index(name)
        arguments = parser_of(name).parse_args([*given[:position], *given[position + 1 :]])
    except UsageError as error:
        print(error.usage, end="", file=sys.stderr)
        return _report(error, name=name, as_json="--json" in given)
    _log_to_stderr(verbose=arguments.verbose, quiet=arguments.quiet)
    imported()
    return _answer(name, arguments)


def entry(*, imported: Callable[[], None] = lambda: None) -> NoReturn:
    """Run the command that the process was called with, and exit with its status."""
    try:
        try:
            status = main(imported=imported)
        except SystemExit as end:
            # argparse, once it has printed a help or the version.
            status = int(end.code or 0)
        write_out(b"")
    except SociPipelineError as error:
        status = _report(error, name=None, as_json=False)
    except BrokenPipeError:
        # Whoever read the answer has seen enough.
        drop_output()
        status = 128 + signal.SIGPIPE
    if status == _INTERRUPTED:
        # Python itself ends by the signal where that came up while it ran a text of code (it does so for data classes).
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def command_of(name: str) -> Command:
    """The module of a command; imports what it needs."""
    return cast("Command", importlib.import_module(f"soci_pipeline.commands.{COMMANDS[name][0]}"))


def _meant(word: str, known: Iterable[str]) -> str | None:
    """With hyphens or without: all options have them in common."""
    return did_you_mean(word.partition("=")[0].lstrip("-"), {each.lstrip("-"): each for each in known})


def _answer(name: str, arguments: argparse.Namespace) -> int:
    try:
        with progress_shown(quiet=arguments.quiet):
            result = command_of(name).run(arguments)
        result.show(as_json=arguments.json)
    except SociPipelineError as error:
        return _report(error, name=name, as_json=arguments.json)
    except OSError as error:
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        return _report(_about_a_file(error), name=name, as_json=arguments.json)
    return result.exit_code


def _about_a_file(error: OSError) -> SociPipelineError:
    """What the operating system refuses about a file that the user named, or below one."""
    kind = DiskFull if error.errno in FULL else InvalidInput
    return kind(f"{error.filename}: {error.strerror}", advice="Check the path, and who may read and write there.")


def _report(error: SociPipelineError, *, name: str | None, as_json: bool) -> int:
    advice = error.advice
    if advice is None and name is not None and isinstance(error, InvalidInput):
        advice = f"`soci-pipeline {name} --help` shows what it takes."
    if as_json:
        _print_failure(type(error).__name__, error.reason, advice, error.exit_code)
    print(f"soci-pipeline: {error.reason}" + (f"\n  next: {advice}" if advice else ""), file=sys.stderr)
    return error.exit_code


def _print_failure(error: str, reason: str, advice: str | None, status: int) -> None:
    fields = {"error": error, "reason": reason, "advice": advice, "exit_code": int(status)}
    print(json.dumps(fields, indent=2))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the time, since bars put themselves before it while they are drawn."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _log_to_stderr(*, verbose: bool, quiet: bool) -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[_StandardError()])
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.getLogger("soci_pipeline").setLevel(level)


def _overview() -> Parser:
    from soci_pipeline._version import __version__

    width = max(len(name) for name in COMMANDS)
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="soci-pipeline",
        usage="soci-pipeline [--version] COMMAND [options]",
        description=f"Publish multi-architecture, SOCI-indexed container images.\n\ncommands:\n{listing}",
        epilog="`soci-pipeline COMMAND --help` shows the options of one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"soci-pipeline {__version__}")
    parser.add_argument("command", nargs="?", choices=tuple(COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
