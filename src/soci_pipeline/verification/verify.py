"""Verification: reads what was pushed back from the registry, before any tag moves.

``sample`` reads every manifest, config and zTOC, and a few spans of each indexed layer: it finds a wrong bit in a
manifest, in a zTOC's digest or format, and in the spans that it reads. ``all`` streams every layer once and builds its
zTOC again: it finds a wrong bit anywhere. Neither reads a layer without a zTOC that has URLs or is not distributable,
because runtimes do not have to pull it from the registry. Both report all faults with their location. A v2 SOCI index
is found through the annotation of the image's manifest, like the snapshotter does; a v1 index through the referrers.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import DamagedContent, InvalidInput, VerificationFailed
from soci_pipeline.images.findings import Finding, Findings
from soci_pipeline.images.graph import ImageGraph, read_graph
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.progress import meter
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BrokenAnswer
from soci_pipeline.text import counted, sized
from soci_pipeline.verification.hard_links import check_hard_links
from soci_pipeline.verification.layers import LayerVerifier
from soci_pipeline.verification.lazy_bytes import PlatformCost, lazy_costs
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.statements import check_statements
from soci_pipeline.verification.structure import LayerToCheck, check_structure

_KINDS = {
    "configs": ("config", "configs"),
    "diff_ids": ("diff id", "diff ids"),
    "diff_ids_unread": ("diff id that cannot be read", "diff ids that cannot be read"),
    "entries": ("entry", "entries"),
    "hard_links_unread": ("layer whose hard links cannot be read", "layers whose hard links cannot be read"),
    "images": ("image", "images"),
    "layers": ("layer", "layers"),
    "layers_held_elsewhere": ("layer held elsewhere", "layers held elsewhere"),
    "manifests": ("manifest", "manifests"),
    "soci_indexes": ("SOCI index", "SOCI indexes"),
    "nested_indexes_unread": ("nested image index not verified", "nested image indexes not verified"),
    "spans": ("span", "spans"),
    "spans_too_large": ("span too large for a sample", "spans too large for a sample"),
    "statements": ("in-toto statement", "in-toto statements"),
    "statements_unread": ("in-toto statement too large to read", "in-toto statements too large to read"),
    "ztocs": ("zTOC", "zTOCs"),
}
"""Singular and plural names of the kinds in `VerificationReport.checked`."""


class VerificationReport(BaseModel):
    """Result of a verification; ``checked`` has a count per kind. The two byte sums are over all platforms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ok: bool
    index: Digest | None = None
    findings: tuple[Finding, ...] = ()
    checked: dict[str, int] = {}
    lazy_bytes: int = 0
    total_bytes: int = 0
    platforms: tuple[PlatformCost, ...] = ()

    def checked_summary(self) -> str:
        """Return what was checked as text, such as ``2 images, 3 zTOCs, 1.5 MiB of layers``, or ``nothing``."""
        counts = dict(self.checked)
        read = counts.pop("bytes", 0)
        said = [counted(number, *_KINDS.get(kind, (kind, None))) for kind, number in counts.items()]
        return ", ".join([*said, f"{sized(read)} of layers"] if read else said) or "nothing"

    def raise_for_findings(self, name: str) -> None:
        """Raise `VerificationFailed` with all findings if there are any; ``name`` is the verified image."""
        if not self.ok:
            lines = "\n".join(str(finding) for finding in self.findings)
            raise VerificationFailed(f"{lines}\n{name} failed verification.")


def verify(
    client: RegistryClient,
    repository: str,
    reference: str | Digest,
    *,
    mode: str = VerifyMode.SAMPLE,
    platforms: Sequence[Platform] | None = None,
    jobs: int = 2,
) -> VerificationReport:
    """Verify an image with ``mode`` (``sample`` or ``all``); ``platforms`` are required platforms.

    ``jobs`` is the number of layers to read in parallel. Wrong or missing content is a finding. Raises
    `ManifestUnknown` if the reference does not exist, `InvalidInput` if it is not an image or the mode reads nothing,
    and errors that are not about the content, such as network and permission errors.
    """
    if mode not in (VerifyMode.SAMPLE, VerifyMode.ALL):
        raise InvalidInput(
            f"the verification mode must be sample or all, not {mode!r}", advice="Choose `sample` or `all`."
        )
    findings = Findings()
    graph = _read(client, repository, reference, findings)
    if graph is None:
        return VerificationReport(ok=False, findings=findings.found, checked=findings.checked)
    layers = check_structure(client, repository, graph, platforms, findings)
    check_statements(client, repository, graph, findings)
    whole = sum(item.layer.size for item in layers) if mode == VerifyMode.ALL else None
    with meter("verify", whole) as advance:
        verifier = LayerVerifier(client, repository, findings, on_bytes=advance)
        _check_layers(verifier.sample if mode == VerifyMode.SAMPLE else verifier.all, layers, jobs)
    check_hard_links(graph, verifier.broken_links, verifier.entries, findings)
    costs = lazy_costs(graph)
    return VerificationReport(
        ok=not findings.found,
        index=graph.root.digest,
        findings=findings.found,
        checked=findings.checked,
        lazy_bytes=sum(each.lazy_bytes for each in costs),
        total_bytes=sum(each.total_bytes for each in costs),
        platforms=costs,
    )


def _read(client: RegistryClient, repository: str, reference: str | Digest, findings: Findings) -> ImageGraph | None:
    try:
        return read_graph(client, repository, reference, findings)
    except (BrokenAnswer, DamagedContent) as error:
        findings.add(f"manifest {reference}", error.reason)
        return None


def _check_layers(check: Callable[[LayerToCheck], None], layers: Sequence[LayerToCheck], jobs: int) -> None:
    if jobs < 1:
        raise InvalidInput(f"the number of layers in parallel must be at least 1, not {jobs}")
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="verify") as pool:
        # Start the largest first, so that the last one to start is not the slowest.
        for _ in pool.map(check, sorted(layers, key=lambda each: each.layer.size, reverse=True)):
            pass
