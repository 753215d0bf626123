"""Build an image, index it for lazy loading, push, join, verify and tag it: from this machine, or through Prefect.

SOURCE is a folder of this machine or the URL of a git repository; IMAGE is registry/repository, without a tag. A folder
is published from this machine. A URL goes through Prefect where PREFECT_API_URL or the active Prefect profile names a
server, else it is published from this machine. --local and --remote override that. The first line of output says which
applies and why.

From this machine: the library builds every platform that the machine's engine can build (its own, one that is emulated,
one of the builder in SOCI_PIPELINE_BUILD_BUILDX_BUILDER). Default platforms that it cannot build are left out and named
in the result; one that was given with --platform is an error. A folder with uncommitted changes, or one that is in no
git repository, is published as it is. It never gets a tag with {sha}, {short_sha}, {ref} or {version}: such tags are
left out with the reason, and if no other tag is given, nothing is published.

Exit statuses: 0 published; 2 an option that does not exist or has no value; 3 a parameter that is not valid; 7 to 9 a
tool or the engine is missing or fails; 10 to 12 the registry refused, is out of reach, or wants other credentials; 13
the source; 14 the build failed; 15 to 17 the images do not fit, or the verification found a fault; 18 a tag may not
move; 21 the disk is full; 23 it took too long; 130 interrupted.
"""

from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.publish_options import parameter_options, platforms_given, request_of
from soci_pipeline.commands.signals import ending_on_signals
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import check_url
from soci_pipeline.log import logger
from soci_pipeline.publish.local_run import publish_here
from soci_pipeline.publish.result_table import result_lines
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings


@command(__doc__)
@click.argument("source", metavar="SOURCE", help="a folder of this machine, or the URL of a git repository")
@click.argument("image", metavar="IMAGE", help="registry/repository, without a tag")
@parameter_options
def run(arguments: Arguments) -> CommandResult:
    source = _source(arguments.source)
    _check_image(arguments.image)
    request = request_of(arguments, source=source)
    settings = Settings.from_environment()
    logger().info("publishing from this machine: SOURCE is a %s", "folder" if source.startswith("/") else "URL")
    with ending_on_signals():
        result = publish_here(request, settings, all_platforms=platforms_given(arguments))
    return CommandResult(json=result.as_json(), text="\n".join(result_lines(result)))


def _source(text: str) -> str:
    """A folder as an absolute path, a URL as it is; raises `InvalidInput` that names SOURCE."""
    path = Path(text).expanduser()
    if path.exists():
        return str(path.absolute())
    if "://" not in text and "@" not in text and ":" not in text:
        raise InvalidInput(
            f"SOURCE {text[:200]!r} does not exist",
            advice="Give a folder of this machine, or the URL of a git repository (https, ssh or git).",
        )
    try:
        return check_url(text)
    except InvalidInput as error:
        raise InvalidInput(f"SOURCE: {error.reason}", advice=error.advice) from error


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
