"""Build an image, index it for lazy loading, push, join, verify and tag it: from this machine, or through Prefect.

SOURCE is a folder of this machine or the URL of a git repository; IMAGE is registry/repository, without a tag. A folder
is published from this machine. A URL goes through Prefect where PREFECT_API_URL or the active Prefect profile names a
server, else it is published from this machine. --local and --remote override that. The first line of output says which
applies and why.

From this machine: the library builds every platform that the machine's engine can build (its own, one that is emulated,
one of the builder in SOCI_PIPELINE_BUILD_BUILDX_BUILDER). Default platforms that it cannot build are left out and named
in the result; one that was given with --platform is tried: BuildKit
needs an emulator for RUN steps alone. A folder with uncommitted changes, or one that is in no
git repository, is published as it is. It never gets a tag with {sha}, {short_sha}, {ref} or {version}: such tags are
left out with the reason, and if no other tag is given, nothing is published.

An image that exists already is not built: `--builder prebuilt --prebuilt docker://REGISTRY/IMAGE:TAG` publishes it with
SOCI indexes; --prebuilt also takes the path or URL of an archive or OCI layout.

Through Prefect: deployments, work pools and workers are looked up before anything starts. The command then shows the
progress of each branch and ends with the same table, or with the cause, the next step and the page of the flow run of
each branch that failed. Ctrl-C in a terminal asks whether to cancel the run or to leave it; elsewhere it leaves it.

Exit statuses: 0 published, or started with --detach, or nothing stands against it with --dry-run; 2 an option that does
not exist or has no value; 3 a parameter that is not valid; 7 to 9 a tool or the engine is missing or fails; 10 to 12
the registry or Prefect refused, is out of reach, or wants other credentials; 13 the source; 14 the build failed; 15 to
17 the images do not fit, or the verification found a fault; 18 a tag may not move; 19 no worker; 20 the flow run
failed for several causes, or for one that it does not name; 21 the disk is full; 22 Prefect does not answer or lacks a
deployment; 23 it took too long; 130 interrupted. A failed flow run with one cause has the status of that cause.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command, together
from soci_pipeline.commands.publish_options import parameter_options, request_of
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import CONTROL, check_url
from soci_pipeline.log import logger
from soci_pipeline.publish.output_folder import check_output
from soci_pipeline.publish.request import LocalPublishRequest, PublishRequest
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.urls import redacted

_modes = together(
    click.option("--local", is_flag=True, help="publish from this machine, whatever SOURCE is"),
    click.option("--remote", is_flag=True, help="publish through Prefect, whatever SOURCE is"),
    click.option("--detach", is_flag=True, help="through Prefect: print the page of the flow run and do not wait"),
    click.option("--dry-run", is_flag=True, help="check and show what would be done; change nothing"),
    click.option(
        "--output",
        type=FILE_PATH,
        metavar="FOLDER",
        help="stop before the push, and leave the joined image as an OCI layout in FOLDER",
    ),
)


class Place(NamedTuple):
    """Where a publication runs, and why."""

    remote: bool
    why: str

    def announce(self, environment: Mapping[str, str]) -> None:
        """Log the first line."""
        server = redacted(environment.get("PREFECT_API_URL", ""))
        where = f"through Prefect at {server}" if self.remote else "from this machine"
        logger().info("publishing %s: %s", where, self.why)


@command(__doc__)
@click.argument("source", metavar="SOURCE", help="a folder of this machine, or the URL of a git repository")
@click.argument("image", metavar="IMAGE", help="registry/repository, without a tag")
@_modes
@parameter_options
def run(arguments: Arguments) -> CommandResult:
    source = _source(arguments.source)
    _check_image(arguments.image)
    environment = _environment(arguments, source)
    place = _place(arguments, source, environment)
    kind = PublishRequest if place.remote else LocalPublishRequest
    request = request_of(arguments, source=source, kind=kind)
    _check_modes(arguments, place, source)
    # Imported once the parameters are known to be valid: HTTP, engines and indexing take a second on a busy machine.
    if not place.remote:
        from soci_pipeline.commands.publish_here import publish_from_here

        return publish_from_here(arguments, request, announce=lambda: place.announce(environment))
    from soci_pipeline.commands.publish_remote import publish_through_prefect

    return publish_through_prefect(arguments, request, environment, announce=lambda: place.announce(environment))


def _environment(arguments: Arguments, source: str) -> dict[str, str]:
    """Return the variables, with those of Prefect's active profile unless a folder is published from here."""
    if source.startswith("/") and not arguments.remote:
        return dict(os.environ)
    from soci_pipeline.prefect_rest.profiles import active_profile

    return active_profile(os.environ) | dict(os.environ)


def _place(arguments: Arguments, source: str, environment: Mapping[str, str]) -> Place:
    """Where the publication runs; raises `InvalidInput` for --remote without a server."""
    server = environment.get("PREFECT_API_URL")
    if arguments.local and arguments.remote:
        raise InvalidInput("--local and --remote exclude each other", advice="Give one of them, or neither.")
    if arguments.local:
        return Place(remote=False, why="--local was given")
    if arguments.remote:
        if not server:
            raise InvalidInput(
                "--remote needs a Prefect server, and neither PREFECT_API_URL nor the active profile names one",
                advice="Set PREFECT_API_URL as in http://127.0.0.1:4200/api, or leave --remote out.",
            )
        return Place(remote=True, why="--remote was given")
    if source.startswith("/"):
        return Place(remote=False, why="SOURCE is a folder (--remote overrides)")
    if server:
        return Place(remote=True, why="SOURCE is a URL, and Prefect is configured (--local overrides)")
    return Place(remote=False, why="SOURCE is a URL, and no Prefect server is configured")


def _check_modes(arguments: Arguments, place: Place, source: str) -> None:
    """Raise `InvalidInput` for an option that would do nothing."""
    if arguments.detach and (not place.remote or arguments.dry_run):
        where = "with --dry-run" if arguments.dry_run else f"from this machine ({place.why})"
        raise InvalidInput(f"--detach has no effect {where}", advice="Leave it out, or add --remote.")
    if arguments.output is None:
        return
    if place.remote:
        raise InvalidInput("--output needs a publication from this machine", advice="Add --local.")
    if arguments.dry_run:
        raise InvalidInput("--output and --dry-run exclude each other", advice="Give one of them.")
    check_output(arguments.output, source)


def _source(text: str) -> str:
    """A folder as an absolute path, a URL as it is; raises `InvalidInput` that names SOURCE."""
    path = _path(text)
    if path is not None:
        return str(path)
    if "://" not in text and "@" not in text and ":" not in text:
        raise InvalidInput(
            f"SOURCE {text[:200]!r} does not exist",
            advice="Give a folder of this machine, or the URL of a git repository (https, ssh or git).",
        )
    try:
        return check_url(text)
    except InvalidInput as error:
        raise InvalidInput(f"SOURCE: {error.reason}", advice=error.advice) from error


def _path(text: str) -> Path | None:
    """The absolute path of a folder or file that exists; raises `InvalidInput` where its name cannot be a parameter."""
    try:
        path = Path(text).expanduser().absolute()
        # Not `Path.exists`, which raises for a folder on the way that may not be read.
        exists = os.path.lexists(path)
    except (RuntimeError, ValueError):
        # A user without a home, or no path at all.
        return None
    if not exists:
        return None
    name = str(path).encode(errors="replace").decode()
    if name != str(path).strip() or CONTROL.search(name):
        raise InvalidInput(
            f"SOURCE {str(path)!r} has control characters, bytes that are not UTF-8, or a space at its end",
            advice="Rename the folder, or give a link to it that has another name.",
        )
    return path


def _check_image(text: str) -> None:
    """Raise `InvalidInput` where IMAGE is not a repository, with the option for a tag."""
    try:
        image = ImageReference.parse(text)
    except InvalidInput as error:
        raise InvalidInput(f"IMAGE {text[:200]!r}: {error.reason}", advice=error.advice) from error
    if image.digest is not None:
        raise InvalidInput(f"IMAGE {text[:200]!r} has a digest", advice="Give the repository alone.")
    if image.tag is not None:
        raise InvalidInput(
            f"IMAGE {text[:200]!r} has the tag {image.tag}",
            advice=f"Give the repository alone, and the tag as an option: `{image.name} --tag {image.tag}`.",
        )
