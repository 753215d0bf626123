"""Markdown reports of runs on existing images: verification, retention, and a plan to index."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.text import counted, sized
from soci_pipeline.verification.verify import VerificationReport
from tasks.markdown import code, table, text
from tasks.summary import indexed, layers_by_reason, saved

if TYPE_CHECKING:
    # Not imported by a publication's process, which would load all that indexing and retention need.
    from soci_pipeline.reindex.index import IndexedImage
    from soci_pipeline.retention.prune import Pruned

_MOST_ROWS = 200
"""The limit of table rows: an artifact is a row in Prefect's database. The run's log and result have all."""


def verification(image: ImageReference, target: str | Digest, report: VerificationReport) -> str:
    """Return all findings, what was read, and what lazy loading saves."""
    said = "verified" if report.ok else f"**not verified**: {counted(len(report.findings), 'finding')}"
    rows = [
        ["Image&nbsp;index", code(report.index) if report.index else "could not be read"],
        ["Checked", text(report.checked_summary())],
    ]
    lines = [f"## {text(image.repository)}", "", f"{code(target)} is {said}.", ""]
    if report.findings:
        found = [[text(finding.where), text(finding.what)] for finding in report.findings]
        lines += [*_long_table(["Where", "What"], found), ""]
    return _page([*lines, *table(["Image", code(image.name)], rows), "", *saved(report)])


def retention(image: ImageReference, done: "Pruned") -> str:
    """Return what is deleted and what is kept, each with its reason."""
    verb = "would go" if done.dry_run else "gone"
    lines = [f"## {text(image.repository)}", "", f"**{len(done.deleted)} {verb}**, {len(done.kept)} kept."]
    if done.dry_run:
        lines += ["", "A dry run: nothing was deleted. Run it again with *Dry run* turned off."]
    for title, names in ((verb.capitalize(), done.deleted), ("Stay", done.kept)):
        rows = [[code(name), text(done.reasons[name])] for name in names]
        lines += ["", f"### {title}", "", *(_long_table(["Tag or digest", "Why"], rows) if rows else ["nothing"])]
    return _page(lines)


def indexing_plan(image: ImageReference, found: "IndexedImage") -> str:
    """Return what a dry run of indexing reports: what would be downloaded, and what a mount would then not need."""
    layers = [(each.platform, layer) for each in found.platforms for layer in each.layers if layer.ztoc is None]
    new = [
        [text(platform), sized(layer.size), code(layer.digest)] for platform, layer in layers if layer.reason is None
    ]
    whole = [(platform, layer) for platform, layer in layers if layer.reason is not None]
    return _page(
        [
            f"## {text(image.repository)}",
            "",
            f"A dry run: {sized(found.bytes_to_fetch)} of layers would be fetched and indexed, and "
            f"{sized(found.lazy_layer_bytes)} are not needed before the mount. Nothing was written.",
            "",
            *table(
                ["Platform", "Layers that keep their zTOC"], [[text(e.platform), indexed(e)] for e in found.platforms]
            ),
            "",
            *(["would be indexed", "", *_long_table(["Platform", "Size", "Layer"], new), ""] if new else []),
            *layers_by_reason(whole[:_MOST_ROWS]),
            *([f"and {len(whole) - _MOST_ROWS} more"] if len(whole) > _MOST_ROWS else []),
        ]
    )


def _long_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    more = ["", f"and {len(rows) - _MOST_ROWS} more"] if len(rows) > _MOST_ROWS else []
    return [*table(header, rows[:_MOST_ROWS]), *more]


def _page(lines: Iterable[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"
