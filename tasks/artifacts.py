"""What a run leaves in the UI: a table for each branch, a summary of the publication, and a link to the image."""

import hashlib
import re

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from soci_pipeline.publish.web_page import web_page
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.records import LayerRecord, PlatformImage
from tasks.markdown import code, text
from tasks.summary import WHY, Shown, pulled, size, summary


def key_of(kind: str, image: ImageReference, *more: str) -> str:
    """The key under which the UI collects the history of one image: lower-case letters, digits and dashes.

    Two images never share one, which their names alone, written so, might do.
    """
    mark = hashlib.sha256(image.name.encode()).hexdigest()[:8]
    return re.sub(r"[^a-z0-9]+", "-", "-".join([kind, image.repository, *more, mark]).lower()).strip("-")


def show_branch(image: ImageReference, branch: PlatformImage) -> None:
    """The layers of one platform: what is indexed, and why the others are not."""
    create_table_artifact(
        table=[_row(number, layer) for number, layer in enumerate(branch.layers, 1)] or [{"layer": "none"}],
        key=key_of("layers", image, branch.platform.slug),
        description=_branch_description(image, branch),
    )


def show_publication(shown: Shown) -> None:
    """The run at a glance, and a link to the image where its registry has a page for it."""
    image, index = shown.image, shown.published.index
    create_markdown_artifact(
        markdown=summary(shown),
        key=key_of("publication" if shown.source else "indexed", image),
        description=f"{pulled(shown)} is {index}",
    )
    page = web_page(image, index)
    if page is not None:
        create_link_artifact(
            link=page,
            link_text=f"{image}@{index}",
            key=key_of("image", image),
            description=f"{image} in its registry",
        )


def _row(number: int, layer: LayerRecord) -> dict[str, str | int]:
    return {
        "layer": number,
        "size": size(layer.size),
        "indexed": "yes" if layer.ztoc else "no",
        "why not": f"{layer.reason.value}: {WHY[layer.reason]}" if layer.reason else "",
        "digest": str(layer.digest),
        "ztoc": str(layer.ztoc or ""),
    }


def _branch_description(image: ImageReference, branch: PlatformImage) -> str:
    steps = ", ".join(f"{text(step)} {seconds:.1f} s" for step, seconds in branch.timings.items())
    soci = code(branch.soci_index.digest) if branch.soci_index else "none"
    return (
        f"**{text(branch.platform)}** of {code(image)}\n\n"
        f"Image {code(branch.manifest.digest)}, SOCI index {soci} ({branch.soci_version.value}). "
        f"Uploaded {size(branch.bytes_uploaded)}, there already {size(branch.bytes_skipped)}. Times: {steps}."
    )
