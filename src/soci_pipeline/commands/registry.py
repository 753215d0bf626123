"""Serve a folder as an OCI registry (distribution spec 1.1): one OCI layout for each repository, no other state.

`serve FOLDER` listens until it is interrupted. Without a login it is open to everyone who can reach it, so it listens
on loopback by default; beyond loopback it should have TLS and a login, and warns if they are missing. Only one registry
can serve a folder at a time. A push is answered once its content is on the disk. A repository is limited to 100,000
manifests and tags; beyond that, pushes are rejected, but reading and deleting still work. With more than 128 manifests
and tags, the `index.json` of a repository is updated within seconds after a change, and is complete at the end.

Exit statuses: 0 interrupted; 3 the options cannot be combined; 22 the address or the folder is in use.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
from pydantic import SecretStr

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.commands.numbers import whole
from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.registry.reference import is_local_registry
from soci_pipeline.registry.server import Login, ServerSettings
from soci_pipeline.registry.server.serving import serve


def _required_folder(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    """Return the folder; without one, raise an error with an example, which click's own message does not have."""
    if value is None:
        example = "Add the folder for the repositories, for example: soci-pipeline registry serve ~/soci-registry"
        raise click.MissingParameter(example, ctx=context, param=parameter)
    return value


@command(__doc__)
@click.argument("action", type=click.Choice(("serve",)), metavar="serve", help="the action")
@click.argument(
    "folder",
    type=FILE_PATH,
    metavar="FOLDER",
    required=False,
    callback=_required_folder,
    help="where the repositories are stored; created if missing",
)
@click.option("--host", default="127.0.0.1", metavar="HOST", help="the address to listen on")
@click.option("--port", type=whole(least=0), default=5000, metavar="PORT", help="the port; 0 chooses a free one")
@click.option("--tls-cert", type=FILE_PATH, metavar="PEM", help="serve https with this certificate chain")
@click.option("--tls-key", type=FILE_PATH, metavar="PEM", help="the key of the certificate")
@click.option("--username", metavar="USERNAME", help="require a login as this user")
@click.option("--password-file", type=FILE_PATH, metavar="FILE", help="a file whose first line is the password")
@click.option("--bearer", is_flag=True, help="require clients to get a token for each scope")
@click.option("--immutable-tags", is_flag=True, help="tags cannot move once they exist")
@click.option("--no-automatic-mount", is_flag=True, help="mount a blob only from a repository that the client names")
@click.option("--no-referrers", is_flag=True, help="behave like a registry without the referrers API")
def run(arguments: Arguments) -> CommandResult:
    if arguments.folder.exists() and not arguments.folder.is_dir():
        raise InvalidInput(f"{arguments.folder} is a file", advice="Use a folder; it is created if missing.")
    settings = ServerSettings(
        login=_login(arguments),
        immutable=(lambda _tag: True) if arguments.immutable_tags else None,
        referrers=not arguments.no_referrers,
        automatic_mount=not arguments.no_automatic_mount,
        sync=True,
    )
    serve(
        arguments.folder,
        host=arguments.host,
        port=arguments.port,
        settings=settings,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        on_ready=partial(_ready, arguments),
    )
    return CommandResult(json=None)


def _ready(arguments: Arguments, address: str) -> None:
    if not is_local_registry(address):
        for missing_requirement in _open_to_all(arguments):
            logger().warning("%s: %s", address, missing_requirement)
    _announce(address, as_json=arguments.json)


def _open_to_all(arguments: Arguments) -> Iterator[str]:
    """Return the risks of a registry that others can reach, and the options that remove them."""
    if arguments.username is None:
        yield (
            "anyone who can reach it can pull, push and delete without a login; set --username and --password-file, "
            "or listen only on loopback"
        )
    if arguments.tls_cert is None:
        what = "images cross" if arguments.username is None else "the password and images cross"
        yield f"{what} the network unencrypted; set --tls-cert and --tls-key, or put a proxy with TLS in front"


def _announce(address: str, *, as_json: bool) -> None:
    """Print where it listens immediately: a program that starts this with ``--json`` waits for it."""
    if as_json:
        CommandResult({"address": address}).show(as_json=True)
    else:
        print(f"listening on {address}", file=sys.stderr, flush=True)


def _login(arguments: Arguments) -> Login | None:
    if (arguments.username is None) != (arguments.password_file is None):
        raise InvalidInput("a login requires both --username and --password-file")
    if arguments.username is None:
        if arguments.bearer:
            raise InvalidInput("--bearer requires a login", advice="Add --username and --password-file.")
        return None
    try:
        password = arguments.password_file.read_text().partition("\n")[0].removesuffix("\r")
    except OSError as error:
        raise InvalidInput(
            f"--password-file {arguments.password_file} cannot be read: {error.strerror}",
            advice="Use a file whose first line is the password.",
        ) from error
    except UnicodeDecodeError as error:
        raise _no_password(arguments.password_file) from error
    if not password.strip():
        # An empty password would let everyone in.
        raise _no_password(arguments.password_file)
    return Login(arguments.username, SecretStr(password), bearer=arguments.bearer)


def _no_password(file: Path) -> InvalidInput:
    advice = "Write the password into the first line of that file."
    return InvalidInput(f"--password-file {file} has no password in its first line", advice=advice)
