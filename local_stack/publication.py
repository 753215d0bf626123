"""Publish through a local stack: the flow run, its progress, and its result."""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from local_stack.stack import Stack
from soci_pipeline.deployment_names import PUBLISH
from soci_pipeline.errors import BranchFailed, DeadlineExceeded, StackError
from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage

_LOOK_SECONDS = 1.0
_TIMEOUT_SECONDS = 3600.0
# Prefect's messages for every task and process, and BuildKit's for every moment of a download.
_DULL = re.compile(
    r"Finished in state Completed|Worker '|Running \d+ deployment pull|(Executing d|D)eployment step|All dep"
    r"|#\d+ (sha256:[0-9a-f]{64} \S+ / |\.\.\.)"
)


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of a finished run."""

    reference: str
    """``registry/repository:tag``."""
    index: Digest
    platforms: tuple[PlatformImage, ...]
    tags: tuple[str, ...]
    seconds: float
    run_url: str


def publish(stack: Stack, repository: str, parameters: Mapping[str, Any]) -> Publication:
    """Run ``publish-image/publish`` for a repository of the stack's registry to its end; show its log as progress.

    Raises `BranchFailed` with the message of a run that does not complete, `DeadlineExceeded` after an hour.
    """
    started = time.monotonic()
    image = f"{stack.registry}/{repository}"
    with PrefectApi(stack.prefect_api_url) as api:
        run = api.create_run(PUBLISH, {"image": image} | dict(parameters))
        logger().info("publishing %s as flow run %s", image, run)
        _follow(api, run, started + _TIMEOUT_SECONDS)
        records = _records(api, run)
    with RegistryClient(stack.registry) as client:
        tags = client.tags.list(repository)
        found = {tag: client.manifests.head(repository, tag) for tag in tags}
    digests = {descriptor.digest for descriptor in found.values() if descriptor is not None}
    if len(digests) != 1:
        raise StackError(f"the run completed, and {image} has {len(digests)} tagged images instead of one")
    index = digests.pop()
    return Publication(
        reference=f"{image}:{tags[0]}",
        index=index,
        platforms=records,
        tags=tags,
        seconds=time.monotonic() - started,
        run_url=f"{stack.prefect_ui_url}/runs/flow-run/{run}",
    )


def _follow(api: PrefectApi, run: str, deadline: float) -> None:
    shown: dict[str, int] = {}
    while True:
        state = api.state(run)
        _show_log(api, run, shown)
        if state.is_final:
            # The last lines arrive shortly after the state.
            time.sleep(_LOOK_SECONDS)
            _show_log(api, run, shown)
        if state.is_completed:
            return
        if state.is_final:
            raise BranchFailed(f"the flow run ended as {state.kind}: {state.message}", advice="Its log is above.")
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"the flow run did not finish within {_TIMEOUT_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)


def _show_log(api: PrefectApi, run: str, shown: dict[str, int]) -> None:
    """Log the lines that are new since the ``shown``-th line of each run."""
    for each, name in ({run: "publish"} | api.children(run)).items():
        for level, text in api.log_lines(each, offset=shown.get(each, 0)):
            shown[each] = shown.get(each, 0) + 1
            if not _DULL.match(text):
                logger().log(max(level, logging.INFO), "  %-12s %s", name.partition(" ")[0], text)


def _records(api: PrefectApi, run: str) -> tuple[PlatformImage, ...]:
    try:
        records = [PlatformImage.model_validate_json(text) for text in api.records(api.children(run))]
    except ValidationError as error:
        raise StackError(f"cannot read the record of a branch: {error!s:.500}") from error
    return tuple(sorted(records, key=lambda record: str(record.platform)))
