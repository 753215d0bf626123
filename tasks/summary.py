"""The summary of a run as Markdown: what was published, what is indexed and why not, what it saves, how to pull it."""

from collections.abc import Sequence
from dataclasses import dataclass

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.web_page import web_page
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.index.records import IndexVersion, LayerRecord, PlatformImage
from soci_pipeline.soci.reasons import explained_reason
from soci_pipeline.text import sized
from soci_pipeline.verification.lazy_bytes import PlatformCost
from soci_pipeline.verification.verify import VerificationReport
from tasks.markdown import code, link, table, text

_MOST_LAYERS = 100
_AFTER_THE_MOUNT = "What the container reads after the mount is fetched on demand and is not counted here."


@dataclass(frozen=True, slots=True)
class Shown:
    """The subject of a summary. ``source`` is None for an image that was not built here."""

    image: ImageReference
    published: PublishedImage
    report: VerificationReport | None
    source: ResolvedSource | None
    seconds: float


def summary(shown: Shown) -> str:
    """Return the whole page."""
    parts = [
        [f"## {text(shown.image.repository)}", "", _headline(shown), ""],
        ["```", f"docker pull {pulled(shown)}", "```", ""],
        [*_facts(shown), ""],
        saved(shown.report),
        ["### Platforms", "", *_platforms(shown), ""],
        _whole_layers(shown.published.platforms),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def pulled(shown: Shown) -> ImageReference:
    """Return the reference to pull: the first tag if there is one, else the digest."""
    tags = shown.published.tags
    return shown.image.with_tag(tags[0]) if tags else shown.image.with_digest(shown.published.index)


def indexed(branch: PlatformImage) -> str:
    """Format how many of a platform's layers have a zTOC."""
    return f"{sum(1 for layer in branch.layers if layer.ztoc)} of {len(branch.layers)}"


def branch_page(image: ImageReference, branch: PlatformImage) -> str:
    """Return the page of a branch: its digests, times, and each layer with its zTOC or the reason why it has none."""
    rows = [
        ["Manifest", _digest(image, branch.manifest.digest)],
        ["SOCI&nbsp;index", _soci_index(image, branch)],
        ["Uploaded", f"{sized(branch.bytes_uploaded)}; {sized(branch.bytes_skipped)} already there"],
        [
            "Times",
            ", ".join(f"{text(step)} {seconds:.1f} s" for step, seconds in branch.timings.items()) or "not known",
        ],
    ]
    parts = [
        [f"## {text(branch.platform)} of {text(image.repository)}", ""],
        [*table(["Image", code(image.name)], rows), ""],
        _indexed_layers(branch.layers),
        _whole_layers([branch]),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _indexed_layers(layers: Sequence[LayerRecord]) -> list[str]:
    """Return two rows per layer: its digest and that of its zTOC do not fit in one row of the page."""
    found = [layer for layer in layers if layer.ztoc is not None]
    if not found:
        return []
    rows = [
        row
        for layer in found[:_MOST_LAYERS]
        for row in ([sized(layer.size), "layer", code(layer.digest)], ["", "zTOC", code(layer.ztoc)])
    ]
    return ["### Layers with a zTOC", "", *table(["Size", "What", "Digest"], rows), "", *_more(len(found)), ""]


def _headline(shown: Shown) -> str:
    branches = shown.published.platforms
    lazy = [text(branch.platform) for branch in branches if branch.soci_index]
    whole = [text(branch.platform) for branch in branches if not branch.soci_index]
    done = "Published" if shown.source else "Indexed"
    if not whole:
        return f"**{done}, and ready for lazy loading** on {_and(lazy)}."
    if not lazy:
        return (
            f"**{done} without a SOCI index**: no layer qualified, so the image is pulled whole. The reasons are below."
        )
    return f"**{done}**: lazy loading on {_and(lazy)}; {_and(whole)} has no layer that qualified and is pulled whole."


def _facts(shown: Shown) -> list[str]:
    published, report, source = shown.published, shown.report, shown.source
    rows = [
        ["Tags", " ".join(code(tag) for tag in published.tags) or "none"],
        ["Image&nbsp;index", _digest(shown.image, published.index)],
    ]
    if source is not None:
        rows.append(["Source", text(source.url)])
        ref = "" if source.ref == source.commit else f" ({text(source.ref)})"
        rows.append(["Commit", code(source.commit) + ref])
    if report is not None:
        rows.append(["Verified", f"yes: {text(report.checked_summary())}"])
    else:
        rows.append(["Verified", "yes" if published.verified else "no, not requested"])
    rows.append(["Time", f"{shown.seconds:.1f} s"])
    return table(["Image", code(shown.image.name)], rows)


def saved(report: VerificationReport | None) -> list[str]:
    """Return a section on the bytes needed before the mount; empty if unknown or nothing is saved."""
    if report is None or report.lazy_bytes >= report.total_bytes:
        return []
    costs = report.platforms
    lines = ["### What lazy loading saves", ""]
    if not costs:
        amount = f"{sized(report.lazy_bytes)} of {sized(report.total_bytes)}"
        return [*lines, f"{amount} is needed before the image can be mounted. {_AFTER_THE_MOUNT}", ""]
    rows = [[text(c.platform), sized(c.lazy_bytes), sized(c.total_bytes), _share(c)] for c in costs]
    return [
        *lines,
        *table(["Platform", "Needed before the mount", "Instead of", "Saved"], rows),
        "",
        _AFTER_THE_MOUNT,
        "",
    ]


def _share(cost: PlatformCost) -> str:
    return f"{100 * (1 - cost.lazy_bytes / cost.total_bytes):.1f} %" if cost.total_bytes else ""


def _platforms(shown: Shown) -> list[str]:
    branches = shown.published.platforms
    rows = [
        [text(branch.platform), indexed(branch), sized(branch.bytes_uploaded), sized(branch.bytes_skipped)]
        for branch in branches
    ]
    digests = [
        [text(branch.platform), what, digest]
        for branch in branches
        for what, digest in (
            ("image", _digest(shown.image, branch.manifest.digest)),
            ("SOCI index", _soci_index(shown.image, branch)),
        )
    ]
    return [
        *table(["Platform", "Layers indexed", "Uploaded", "There already"], rows),
        "",
        *table(["Platform", "What", "Digest"], digests),
    ]


def _soci_index(image: ImageReference, branch: PlatformImage) -> str:
    if branch.soci_index is None:
        return "none"
    kind = " (v1, a referrer)" if branch.soci_version is IndexVersion.V1 else ""
    return _digest(image, branch.soci_index.digest) + kind


def _whole_layers(branches: Sequence[PlatformImage]) -> list[str]:
    found = [(branch.platform, layer) for branch in branches for layer in branch.layers if layer.ztoc is None]
    if not found:
        return []
    return ["### Layers that are pulled whole", "", *layers_by_reason(found[:_MOST_LAYERS]), *_more(len(found))]


def layers_by_reason(layers: Sequence[tuple[Platform, LayerRecord]]) -> list[str]:
    """Return a table for each reason, with the reason above it: it does not fit in a row next to a digest."""
    lines: list[str] = []
    for reason in dict.fromkeys(layer.reason for _, layer in layers):
        rows = [
            [text(platform), sized(layer.size), code(layer.digest)]
            for platform, layer in layers
            if layer.reason is reason
        ]
        lines += [
            explained_reason(reason) if reason else "not known",
            "",
            *table(["Platform", "Size", "Layer"], rows),
            "",
        ]
    return lines


def _more(number: int) -> list[str]:
    return [f"and {number - _MOST_LAYERS} more"] if number > _MOST_LAYERS else []


def _digest(image: ImageReference, digest: Digest) -> str:
    return link(code(digest), web_page(image, digest))


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
