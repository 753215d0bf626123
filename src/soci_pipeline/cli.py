"""The `soci-pipeline` command: finds a command's module, runs it, prints its answer; the only place that exits.

Progress and errors go to standard error; the answer goes to standard output, as text or, with ``--json``, as one JSON
object. Exit statuses are `soci_pipeline.errors.ExitCode`.
"""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import cast

from soci_pipeline.commands import Command
from soci_pipeline.errors import ExitCode, SociPipelineError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "start a local stack, publish an example for two platforms, show the result"),
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
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in arguments_given if not word.startswith("-")), None)
    if name not in COMMANDS:
        _overview().parse_args(arguments_given)
        _overview().print_help(sys.stderr)
        return ExitCode.USAGE
    command = cast("Command", importlib.import_module(f"soci_pipeline.commands.{COMMANDS[name][0]}"))
    position = arguments_given.index(name)
    parser = argparse.ArgumentParser(
        prog=f"soci-pipeline {name}", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--verbose", action="store_true", help="log every program that is run and every request")
    command.configure(parser)
    arguments = parser.parse_args(arguments_given[:position] + arguments_given[position + 1 :])
    _log_to_stderr(verbose=arguments.verbose)
    return _answer(command, arguments)


def entry() -> None:
    """The console script."""
    sys.exit(main())


def _answer(command: Command, arguments: argparse.Namespace) -> int:
    try:
        result = command.run(arguments)
    except SociPipelineError as error:
        return _report(error, as_json=arguments.json)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(result.json, indent=2))
    elif result.text:
        print(result.text)
    return result.exit_code


def _report(error: SociPipelineError, *, as_json: bool) -> int:
    if as_json:
        fields = {"error": type(error).__name__, "reason": error.reason, "advice": error.advice}
        print(json.dumps(fields | {"exit_code": int(error.exit_code)}, indent=2))
    print(f"soci-pipeline: {error}", file=sys.stderr)
    return error.exit_code


def _log_to_stderr(*, verbose: bool) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("soci_pipeline").setLevel(logging.DEBUG if verbose else logging.INFO)


def _overview() -> argparse.ArgumentParser:
    from soci_pipeline import __version__

    width = max(len(name) for name in COMMANDS)
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="soci-pipeline",
        usage="soci-pipeline [--version] COMMAND [options]",
        description=f"Publish multi-architecture, SOCI-indexed container images.\n\ncommands:\n{listing}",
        epilog="`soci-pipeline COMMAND --help` shows the options of one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"soci-pipeline {__version__}")
    parser.add_argument("command", nargs="?", choices=tuple(COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
