"""Print a script that completes commands, options and their values in a shell, which runs `soci-pipeline` for that.

  bash   source <(soci-pipeline completion bash)
  zsh    soci-pipeline completion zsh > "${fpath[1]}/_soci-pipeline"
  fish   soci-pipeline completion fish > ~/.config/fish/completions/soci-pipeline.fish

The first line goes into ~/.bashrc; the others are needed once, and again after an upgrade.

Exit statuses: 0 printed; 2 no shell, or another one.
"""

import click
from click.shell_completion import ShellComplete, get_completion_class

from soci_pipeline.commands import CommandResult, write_out
from soci_pipeline.commands.command import COMPLETION_VARIABLE, Arguments, command

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "soci-pipeline"
_WHERE_IT_GOES = "# Made by `soci-pipeline completion {shell}`; `soci-pipeline completion --help` says where it goes.\n"


@command(__doc__)
@click.argument("shell", type=click.Choice(SHELLS), help="the shell that shall read the script")
def run(arguments: Arguments) -> CommandResult:
    script = completion_script(arguments.shell)
    return CommandResult(json={"shell": arguments.shell, "script": script}, text=script)


def completion_script(shell: str) -> str:
    """Click's script for one of `SHELLS`; zsh wants its own comment in the first line."""
    script = _completion(shell, click.Command(PROGRAM)).source().strip("\n")
    first, newline, rest = script.partition("\n") if shell == "zsh" else ("", "", script)
    return first + newline + _WHERE_IT_GOES.format(shell=shell) + rest


def write_completions(group: click.Group, instruction: str) -> None:
    """Answer a script: what can stand in the place of the word in the variables that it sets."""
    shell, _, action = instruction.partition("_")
    if shell in SHELLS and action == "complete":
        write_out(f"{_completion(shell, group).complete()}\n".encode())


def _completion(shell: str, group: click.Command) -> ShellComplete:
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101
    return kind(group, {}, PROGRAM, COMPLETION_VARIABLE)
