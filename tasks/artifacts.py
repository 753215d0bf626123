"""Artifacts of a run in the UI: a page for each branch, a summary of each flow, and a link to the image."""

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.publish.web_page import web_page
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.text import sized
from soci_pipeline.verification.verify import VerificationReport
from tasks.outage import ERRORS, retry_during_outage
from tasks.reports import indexing_plan, retention, verification
from tasks.summary import Shown, branch_page, indexed, pulled, summary
from tasks.ui_links import artifact_page, artifacts_page

if TYPE_CHECKING:
    from soci_pipeline.reindex.index import IndexedImage
    from soci_pipeline.retention.prune import Pruned


def key_of(kind: str, image: ImageReference, *more: str) -> str:
    """Return the key under which the UI groups the artifacts of one image: lower-case letters, digits and dashes.

    A hash keeps keys unique: the names of two images may be equal once they are reduced to these characters.
    """
    mark = hashlib.sha256(image.name.encode()).hexdigest()[:8]
    return re.sub(r"[^a-z0-9]+", "-", "-".join([kind, image.repository, *more, mark]).lower()).strip("-")


def make_artifact(make: Callable[..., Any], **fields: Any) -> None:
    """Create an artifact once the server is reachable; if that fails, only log it, because the work is already done.

    The log contains the URL of a Markdown page: nothing else in Prefect's UI links to the page of all artifacts.
    """
    try:
        made = retry_during_outage(lambda: make(**fields))
    except (*ERRORS, PrefectRefused, PrefectUnavailable) as error:
        logger().warning("cannot create the artifact %s (%s)", fields["key"], type(error).__name__)
        return
    if "markdown" in fields and (page := artifact_page(made)):
        logger().info("artifact %s: %s (all artifacts: %s)", fields["key"], page, artifacts_page())


def show_branch(image: ImageReference, branch: PlatformImage) -> None:
    """Show the layers of one platform: which are indexed, and why the others are not."""
    make_artifact(
        create_markdown_artifact,
        markdown=branch_page(image, branch),
        key=key_of("layers", image, branch.platform.slug),
        description=f"{branch.platform} of {image}: {indexed(branch)} layers indexed",
    )


def show_publication(shown: Shown) -> None:
    """Show a summary of the run, and a link to the image if its registry has a page for it."""
    image, index = shown.image, shown.published.index
    make_artifact(
        create_markdown_artifact,
        markdown=summary(shown),
        key=key_of("publication" if shown.source else "indexed", image),
        description=f"{pulled(shown)} is {index}",
    )
    page = web_page(image, index)
    if page is not None:
        make_artifact(
            create_link_artifact,
            link=page,
            link_text=f"{image}@{index}",
            key=key_of("image", image),
            description=f"{image} in its registry",
        )


def show_verification(image: ImageReference, target: str | Digest, report: VerificationReport) -> None:
    """Show what the gate read, and its findings."""
    make_artifact(
        create_markdown_artifact,
        markdown=verification(image, target, report),
        key=key_of("verification", image),
        description=f"{image.name} at {target}: {'ok' if report.ok else f'{len(report.findings)} findings'}",
    )


def show_retention(image: ImageReference, done: "Pruned") -> None:
    """Show what retention deleted (or would delete), and why the rest is kept."""
    verb = "would go" if done.dry_run else "gone"
    make_artifact(
        create_markdown_artifact,
        markdown=retention(image, done),
        key=key_of("retention", image),
        description=f"{image.name}: {len(done.deleted)} {verb}, {len(done.kept)} kept",
    )


def show_indexing_plan(image: ImageReference, found: "IndexedImage") -> None:
    """Show what indexing would download and save."""
    make_artifact(
        create_markdown_artifact,
        markdown=indexing_plan(image, found),
        key=key_of("indexing-plan", image),
        description=f"{image}: {sized(found.bytes_to_fetch)} would be fetched",
    )
