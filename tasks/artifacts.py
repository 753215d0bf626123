"""What a run leaves in the UI: a table for each branch, a summary of the publication, and a link to the image."""

import re
from collections.abc import Sequence

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.verification.verify import VerificationReport
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.records import LayerRecord, PlatformImage

_MIB = 1 << 20


def key_of(kind: str, image: ImageReference, *more: str) -> str:
    """The key under which the UI collects the history of one image: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join([kind, image.repository, *more]).lower()).strip("-")


def show_branch(image: ImageReference, branch: PlatformImage) -> None:
    """The layers of one platform: what is indexed, and why the others are not."""
    create_table_artifact(
        table=[_row(number, layer) for number, layer in enumerate(branch.layers, 1)] or [{"layer": "none"}],
        key=key_of("branch", image, branch.platform.slug),
        description=_branch_description(image, branch),
    )


def show_publication(
    image: ImageReference, published: PublishedImage, report: VerificationReport | None, *, seconds: float
) -> None:
    """The run at a glance, and a link to the image."""
    create_markdown_artifact(
        markdown=summary(image, published, report, seconds=seconds),
        key=key_of("publication", image),
        description=f"{image} at {published.index}",
    )
    create_link_artifact(
        link=f"https://{image.registry}/v2/{image.repository}/manifests/{published.index}",
        link_text=f"{image}@{published.index}",
        key=key_of("image", image),
        description=f"The image index of {image} in its registry",
    )


def summary(
    image: ImageReference, published: PublishedImage, report: VerificationReport | None, *, seconds: float
) -> str:
    """Markdown: how to pull it, every digest, and what lazy loading saves."""
    tags = ", ".join(f"`{tag}`" for tag in published.tags) or "none"
    lines = [
        f"# {image.repository}",
        "",
        f"- Pull: `docker pull {image.with_tag(published.tags[0]) if published.tags else published.reference}`",
        f"- Tags: {tags}",
        f"- Image index: `{published.index}`",
        f"- Verified: {'yes' if published.verified else 'no, it was not asked for'}",
        f"- Time: {seconds:.1f} s",
        "",
        "| Platform | Image manifest | SOCI index | Layers indexed | Uploaded | There already |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_platform_line(branch) for branch in published.platforms]
    if report is not None and report.total_bytes:
        share = 100 * report.lazy_bytes / report.total_bytes
        lines += [
            "",
            f"A container can start after {size(report.lazy_bytes)} of {size(report.total_bytes)} ({share:.1f} %).",
        ]
    unindexed = [(branch, layer) for branch in published.platforms for layer in branch.layers if layer.ztoc is None]
    if unindexed:
        lines += ["", "Layers that are pulled whole:", ""]
        lines += [f"- {b.platform} `{x.digest}`, {size(x.size)}: {x.reason or 'unknown'}" for b, x in unindexed]
    return "\n".join(lines) + "\n"


def size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / _MIB:.1f} MiB" if count >= _MIB else f"{count / 1024:.1f} KiB"


def _row(number: int, layer: LayerRecord) -> dict[str, str | int]:
    return {
        "layer": number,
        "size": size(layer.size),
        "indexed": "yes" if layer.ztoc else "no",
        "reason": layer.reason.value if layer.reason else "",
        "digest": str(layer.digest),
        "ztoc": str(layer.ztoc or ""),
    }


def _branch_description(image: ImageReference, branch: PlatformImage) -> str:
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in branch.timings.items())
    return (
        f"**{branch.platform}** of {image}\n\n"
        f"Image `{branch.manifest.digest}`, SOCI index `{branch.soci_index.digest if branch.soci_index else 'none'}` "
        f"({branch.soci_version.value}). Uploaded {size(branch.bytes_uploaded)}, there already "
        f"{size(branch.bytes_skipped)}. Times: {steps}."
    )


def _platform_line(branch: PlatformImage) -> str:
    cells: Sequence[str] = (
        str(branch.platform),
        f"`{branch.manifest.digest}`",
        f"`{branch.soci_index.digest}`" if branch.soci_index else "none",
        f"{sum(1 for layer in branch.layers if layer.ztoc)} of {len(branch.layers)}",
        size(branch.bytes_uploaded),
        size(branch.bytes_skipped),
    )
    return f"| {' | '.join(cells)} |"
