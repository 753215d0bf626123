"""Building blocks of the commands: a click command with the common switches, and groups of commands.

Parsing runs nothing. A command that click invokes returns a `Call`, which `soci_pipeline.cli` runs.
"""

import importlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from soci_pipeline.commands import CommandResult, write_out

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SWITCHES: Final[Mapping[str, str]] = {
    "json": "print one JSON object instead of text",
    "verbose": "log every program run and every request",
    "quiet": "show no progress, and log only warnings",
}
"""The switches of every command, with their help."""

COMPLETION_VARIABLE: Final = "_SOCI_PIPELINE_COMPLETE"
"""The environment variable through which a completion script calls the program, as in ``bash_complete``."""

FILE_PATH: Final = click.Path(path_type=Path, readable=False)
"""A path exactly as the user wrote it; the command itself checks the target."""

_SETTINGS: Final[Mapping[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 120,
}
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class Arguments(SimpleNamespace):
    """The values of a command's parameters and of the switches, by name."""


@dataclass(frozen=True, slots=True)
class Call:
    """A parsed command line; ``path`` is the command's name as in ``soci-pipeline webhook check``."""

    path: str
    run: Callable[[Arguments], CommandResult]
    arguments: Arguments


class _WithSwitches(click.Command):
    """A command with the common switches, whose help is printed by `write_out`, which reports a full disk."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += [click.Option([f"--{name}"], is_flag=True, help=text) for name, text in SWITCHES.items()]

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the help option with our own callback."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _print_help
        return option

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add this command's help to every error: click omits it from some errors about options."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Command(_WithSwitches):
    """A command whose callback takes `Arguments` and returns a `CommandResult`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, context_settings={"allow_extra_args": True}, **settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Quote extra arguments in the error: click shows an empty one as ``()``."""
        if not ctx.resilient_parsing:
            self._check_values(ctx, args)
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            ctx.fail(f"Got unexpected extra argument{'s' if len(extra) > 1 else ''} {' '.join(map(repr, extra))}")
        return extra

    def _check_values(self, ctx: click.Context, args: list[str]) -> None:
        """Reject an option in place of another option's value: click reads ``--output --json`` as a file name."""
        options = {name: each for each in self.params if isinstance(each, click.Option) for name in each.opts}
        before_hyphens = itertools.takewhile(lambda word: word != "--", args)
        for word, following in itertools.pairwise(before_hyphens):
            option = options.get(word)
            if option is not None and not option.is_flag and following.partition("=")[0] in options:
                raise click.BadOptionUsage(word, f"Option {word!r} requires an argument, not {following!r}.", ctx)

    def invoke(self, ctx: click.Context) -> Call:
        """Return the call without running it."""
        assert self.callback is not None  # noqa: S101
        return Call(ctx.command_path, self.callback, Arguments(**ctx.params | _switches(ctx)))


class CommandGroup(_WithSwitches, click.Group):
    """A group of commands; the switches are allowed before and after the name of each."""

    command_class = Command


class LazyGroup(CommandGroup):
    """A group that imports only the module of the command that runs.

    The table maps each name to the location of its command, as ``module:attribute`` below ``package``, and to one line
    of help.
    """

    def __init__(self, name: str, package: str, table: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(name, subcommand_metavar="COMMAND [ARGS]...", context_settings=_SETTINGS, **settings)
        self.program = name
        self._package = package
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of one command."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{self._package}.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest names from the table, and options like --version, for an unknown one."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            options = [name for parameter in self.params for name in parameter.opts]
            raise click.NoSuchCommand(error.command_name, possibilities=[*self._table, *options], ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete the names of commands without importing them, and the options."""
        from click.shell_completion import CompletionItem

        rows = ((name, text) for name, (_, text) in self._table.items() if name.startswith(incomplete))
        return [
            *(CompletionItem(name, help=text) for name, text in rows),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


def command(text: str | None) -> Callable[[Callable[[Arguments], CommandResult]], Command]:
    """Turn the function into a command; ``text`` is its help."""
    return click.command(cls=Command, help=help_text(text))


def help_text(docstring: str | None) -> str:
    """Convert a module's docstring for click, which joins the lines of a paragraph; indented lines are kept."""
    return (docstring or "").replace("\n\n  ", "\n\n\b\n  ")


def combine(*decorators: Callable[[Any], Any]) -> Callable[[_Decorated], _Decorated]:
    """Combine several options into one decorator, in their order."""

    def add(function: _Decorated) -> _Decorated:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return add


def _print_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        write_out(f"{ctx.get_help()}\n".encode())
        ctx.exit()


def _switches(ctx: click.Context) -> dict[str, bool]:
    """Return whether a switch was set, before or after the command's name."""
    chain = [ctx]
    while (parent := chain[-1].parent) is not None:
        chain.append(parent)
    return {name: any(each.params.get(name) for each in chain) for name in SWITCHES}
