"""Print a script that completes commands, options and their values in a shell.

  bash   source <(soci-pipeline completion bash)
  zsh    soci-pipeline completion zsh > "${fpath[1]}/_soci-pipeline"
  fish   soci-pipeline completion fish > ~/.config/fish/completions/soci-pipeline.fish

The first line goes into ~/.bashrc; the others are needed once, and again after an upgrade.

Exit statuses: 0 printed; 2 another shell.
"""

import argparse
from pathlib import Path

from soci_pipeline.commands import CommandResult

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "soci-pipeline"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that shall read the script")


def run(arguments: argparse.Namespace) -> CommandResult:
    script = completion_script(arguments.shell)
    return CommandResult(json={"shell": arguments.shell, "script": script}, text=script)


def completion_script(shell: str) -> str:
    """The script for one of `SHELLS`."""
    import shtab

    parser = whole_parser()
    _complete_files(parser, shtab.FILE)
    script: str = shtab.complete(parser, shell=shell)
    return script.rstrip("\n")


def whole_parser() -> argparse.ArgumentParser:
    """One parser with every command below it; the command itself never needs them all at once."""
    from soci_pipeline import cli

    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(dest="command")
    for name, (_, text) in cli.COMMANDS.items():
        cli.configure(commands.add_parser(name, help=text), cli.command_of(name))
    return parser


def _complete_files(parser: argparse.ArgumentParser, by_shell: object) -> None:
    """Let every argument that is a path be completed with files."""
    for action in parser._actions:
        if action.type is Path:
            action.complete = by_shell  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _complete_files(each, by_shell)
