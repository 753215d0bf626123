"""`publish` from this machine: a plan, a layout or a publication, once the parameters are validated."""

from collections.abc import Callable

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments
from soci_pipeline.commands.publish_answers import planned, published
from soci_pipeline.commands.signals import ending_on_signals
from soci_pipeline.publish.dry_run import plan_here
from soci_pipeline.publish.local_layout import publish_to_folder
from soci_pipeline.publish.local_run import check_local, publish_here
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.settings import Settings


def publish_from_here(arguments: Arguments, request: PublishRequest, *, announce: Callable[[], None]) -> CommandResult:
    """Publish, plan or write a layout, depending on the options; ``announce`` logs the first line."""
    check_local(request)
    announce()
    settings, chosen = Settings.from_environment(), "platforms" in request.model_fields_set
    with ending_on_signals():
        if arguments.dry_run:
            return planned(plan_here(request, settings, all_platforms=chosen))
        if arguments.output is not None:
            return published(publish_to_folder(request, settings, arguments.output, all_platforms=chosen))
        return published(publish_here(request, settings, all_platforms=chosen))
