"""`python -m local_stack demo`, which `make demo` runs in a checkout.

It is not a command of `soci-pipeline`: an installed package has neither the flows nor the example. Its answer, errors
and exit statuses have the same form.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from local_stack import demo
from soci_pipeline.commands.progress_display import progress_shown
from soci_pipeline.errors import DiskFull, ExitCode, InvalidInput, SociPipelineError
from soci_pipeline.full_disk import FULL

_INTERRUPTED = 128 + signal.SIGINT


class UsageError(SociPipelineError):
    """A call that argparse rejects."""

    exit_code = ExitCode.USAGE


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to the current standard error, which progress bars replace while they are drawn."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` instead of exiting."""
        self.print_usage(sys.stderr)
        raise UsageError(message, advice=f"`{self.prog} --help` shows the options.")


def main(argv: Sequence[str]) -> int:
    """Run a command; returns its exit status."""
    as_json = "--json" in argv
    try:
        return _run(argv)
    except KeyboardInterrupt:
        if as_json:
            _print_failure("Interrupted", "interrupted", None, _INTERRUPTED)
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except SociPipelineError as error:
        return _report(error, as_json=as_json)
    except OSError as error:
        if error.filename is None:
            raise
        return _report(_about_a_file(error), as_json=as_json)


def _run(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, handlers=[_StandardError()])
    level = logging.DEBUG if arguments.verbose else logging.WARNING if arguments.quiet else logging.INFO
    logging.getLogger("soci_pipeline").setLevel(level)
    with progress_shown(quiet=arguments.quiet):
        result = demo.run(arguments)
    result.show(as_json=arguments.json)
    return result.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m local_stack", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    command = commands.add_parser(
        "demo",
        help="start a local stack, publish an example for two platforms, show the result",
        description=demo.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command.add_argument("--verbose", action="store_true", help="log every program that is run and every request")
    command.add_argument("--quiet", action="store_true", help="show no progress, and log warnings alone")
    demo.configure(command)
    return parser


def _about_a_file(error: OSError) -> SociPipelineError:
    kind = DiskFull if error.errno in FULL else InvalidInput
    return kind(f"{error.filename}: {error.strerror}", advice="Check the path, and who may read and write there.")


def _report(error: SociPipelineError, *, as_json: bool) -> int:
    if as_json:
        _print_failure(type(error).__name__, error.reason, error.advice, error.exit_code)
    advice = f"\n  next: {error.advice}" if error.advice else ""
    print(f"demo: {error.reason}{advice}", file=sys.stderr)
    return error.exit_code


def _print_failure(error: str, reason: str, advice: str | None, status: int) -> None:
    fields = {"error": error, "reason": reason, "advice": advice, "exit_code": int(status)}
    print(json.dumps(fields, indent=2))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
