"""`publish` through Prefect: check the requirements, start the flow run, and follow it."""

import sys
from collections.abc import Callable, Mapping
from functools import partial

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments
from soci_pipeline.commands.publish_answers import planned, published
from soci_pipeline.commands.signals import ending_on_signals
from soci_pipeline.log import logger
from soci_pipeline.prefect_rest.access import run_page
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.profiles import check_access
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.remote_publish.follow import follow
from soci_pipeline.remote_publish.start import plan_remote, ready_parts, remote_request, start
from soci_pipeline.settings import Settings

_TIMEOUT_S = 60.0


def publish_through_prefect(
    arguments: Arguments, request: PublishRequest, environment: Mapping[str, str], *, announce: Callable[[], None]
) -> CommandResult:
    """Start a flow run and follow it, or plan it; ``announce`` logs the first line."""
    check_access(environment)
    announce()
    return _started(arguments, remote_request(request), environment)


def _started(arguments: Arguments, request: PublishRequest, environment: Mapping[str, str]) -> CommandResult:
    page = partial(run_page, environment)
    with PrefectApi.from_environment(environment, deadline_s=_TIMEOUT_S) as api:
        if arguments.dry_run:
            return planned(plan_remote(api, request, Settings.from_environment()))
        ready_parts(api, request)
        run = start(api, request)
        if arguments.detach:
            return CommandResult({"run": run, "run_url": page(run)}, f"started {page(run)}")
        logger().info("started %s", page(run))
        try:
            with ending_on_signals():
                return published(follow(api, run, page))
        except KeyboardInterrupt:
            _leave(api, run, page(run))
            raise


def _leave(api: PrefectApi, run: str, url: str) -> None:
    """Cancel the run if the user at the terminal confirms it; otherwise it continues."""
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print("Cancel the publication? Otherwise it continues. [y/N] ", end="", file=sys.stderr, flush=True)
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if answer.strip().lower() in ("y", "yes"):
            api.cancel(run)
            logger().warning("cancelling %s", url)
            return
    logger().warning("the publication continues: %s", url)
