"""Build an image, index it for lazy loading, push, join, verify and tag it: from this machine, or through Prefect.

SOURCE is a folder on this machine or the URL of a git repository; IMAGE is registry/repository, without a tag. A folder
is published from this machine. A URL is published through Prefect if PREFECT_API_URL or the active Prefect profile
names a server, and otherwise from this machine. --local and --remote override that. The first line of output says which
applies and why.

From this machine, every platform is built that the machine's engine supports: its own, an emulated one, or one of the
builder in SOCI_PIPELINE_BUILD_BUILDX_BUILDER. Default platforms that it cannot build are skipped and named in the
result; a platform that was requested with --platform is tried, because BuildKit needs an emulator only for RUN steps. A
folder with uncommitted changes, or outside a git repository, is published as it is. It never gets a tag with {sha},
{short_sha}, {ref} or {version}: such tags are skipped with the reason, and without any other tag nothing is published.

To publish an existing image without building it, use `--builder prebuilt --prebuilt docker://REGISTRY/IMAGE:TAG`;
--prebuilt also accepts the path or URL of an archive or OCI layout.

Through Prefect, deployments, work pools and workers are checked before anything starts. The command then shows the
progress of each branch and ends with the same table, or with the cause, the next step and the page of the flow run of
each failed branch. Ctrl-C in a terminal asks whether to cancel the run; elsewhere the run continues.

Exit statuses: 0 published, started with --detach, or possible with --dry-run; 2 an unknown option or a missing value; 3
an invalid parameter; 7 to 9 a tool or the engine is missing or fails; 10 to 12 the registry or Prefect rejects the
request, does not answer, or requires other credentials; 13 the source; 14 the build failed; 15 to 17 the images cannot
be joined, or failed verification; 18 a tag must not move; 19 no worker; 20 the flow run failed for several causes, or
for one that it does not name; 21 the disk is full; 22 Prefect does not answer or has no such deployment; 23 a deadline
was exceeded; 130 interrupted. A failed flow run with one cause has the status of that cause.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, combine, command
from soci_pipeline.commands.publish_options import parameter_options, request_of
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import CONTROL, check_url
from soci_pipeline.log import logger
from soci_pipeline.publish.output_folder import check_output
from soci_pipeline.publish.request import LocalPublishRequest, PublishRequest
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.urls import redacted

_modes = combine(
    click.option("--local", is_flag=True, help="publish from this machine, regardless of SOURCE"),
    click.option("--remote", is_flag=True, help="publish through Prefect, regardless of SOURCE"),
    click.option("--detach", is_flag=True, help="through Prefect: print the URL of the flow run and do not wait"),
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
@click.argument("source", metavar="SOURCE", help="a folder on this machine, or the URL of a git repository")
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
    # Imported only after the parameters are validated: HTTP, engines and indexing take a second on a busy machine.
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
    """Decide where the publication runs; raise `InvalidInput` for --remote without a server."""
    server = environment.get("PREFECT_API_URL")
    if arguments.local and arguments.remote:
        raise InvalidInput("--local and --remote exclude each other", advice="Use one of them, or neither.")
    if arguments.local:
        return Place(remote=False, why="--local was given")
    if arguments.remote:
        if not server:
            raise InvalidInput(
                "--remote requires a Prefect server, but neither PREFECT_API_URL nor the active profile names one",
                advice="Set PREFECT_API_URL, for example to http://127.0.0.1:4200/api, or omit --remote.",
            )
        return Place(remote=True, why="--remote was given")
    if source.startswith("/"):
        return Place(remote=False, why="SOURCE is a folder (--remote overrides)")
    if server:
        return Place(remote=True, why="SOURCE is a URL, and Prefect is configured (--local overrides)")
    return Place(remote=False, why="SOURCE is a URL, and no Prefect server is configured")


def _check_modes(arguments: Arguments, place: Place, source: str) -> None:
    """Raise `InvalidInput` for an option that would have no effect."""
    if arguments.detach and (not place.remote or arguments.dry_run):
        where = "with --dry-run" if arguments.dry_run else f"from this machine ({place.why})"
        raise InvalidInput(f"--detach has no effect {where}", advice="Omit it, or add --remote.")
    if arguments.output is None:
        return
    if place.remote:
        raise InvalidInput("--output requires a publication from this machine", advice="Add --local.")
    if arguments.dry_run:
        raise InvalidInput("--output and --dry-run exclude each other", advice="Use only one of them.")
    check_output(arguments.output, source)


def _source(text: str) -> str:
    """Return a folder as an absolute path, or a URL unchanged; raise `InvalidInput` that names SOURCE."""
    path = _path(text)
    if path is not None:
        return str(path)
    if "://" not in text and "@" not in text and ":" not in text:
        raise InvalidInput(
            f"SOURCE {text[:200]!r} does not exist",
            advice="Use a folder on this machine, or the URL of a git repository (https, ssh or git).",
        )
    try:
        return check_url(text)
    except InvalidInput as error:
        raise InvalidInput(f"SOURCE: {error.reason}", advice=error.advice) from error


def _path(text: str) -> Path | None:
    """Return the absolute path of an existing file; raise `InvalidInput` if its name cannot be a parameter."""
    try:
        path = Path(text).expanduser().absolute()
        # Not `Path.exists`, which raises if a parent folder is not readable.
        exists = os.path.lexists(path)
    except (RuntimeError, ValueError):
        # A user without a home, or an invalid path.
        return None
    if not exists:
        return None
    name = str(path).encode(errors="replace").decode()
    if name != str(path).strip() or CONTROL.search(name):
        raise InvalidInput(
            f"SOURCE {str(path)!r} contains control characters, bytes that are not UTF-8, or a trailing space",
            advice="Rename the folder, or use a link to it with another name.",
        )
    return path


def _check_image(text: str) -> None:
    """Raise `InvalidInput` if IMAGE is not a repository; suggest the option for a tag."""
    try:
        image = ImageReference.parse(text)
    except InvalidInput as error:
        raise InvalidInput(f"IMAGE {text[:200]!r}: {error.reason}", advice=error.advice) from error
    if image.digest is not None:
        raise InvalidInput(f"IMAGE {text[:200]!r} has a digest", advice="Use only the repository.")
    if image.tag is not None:
        raise InvalidInput(
            f"IMAGE {text[:200]!r} has the tag {image.tag}",
            advice=f"Use only the repository, and set the tag with an option: `{image.name} --tag {image.tag}`.",
        )
