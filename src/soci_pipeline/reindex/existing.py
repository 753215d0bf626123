"""Reads the image to index from the registry."""

from dataclasses import dataclass

from soci_pipeline.errors import InvalidInput, TagConflict
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph, read_graph
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.tag_names import check_tag
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.soci.index.records import IndexVersion


@dataclass(frozen=True, slots=True)
class ExistingImage:
    """An image in a registry and the settings to index it with.

    ``new_tag`` is the tag for the indexed image, or None if the image was read by its digest only.
    """

    client: RegistryClient
    reference: ImageReference
    settings: IndexSettings
    new_tag: str | None
    graph: ImageGraph

    @property
    def repository(self) -> str:
        """Name of the repository of the image and the indexed image."""
        return self.reference.repository

    def current(self, tag: str) -> Descriptor | None:
        """Return the descriptor that a tag of the repository points at now, or None."""
        return self.client.manifests.head(self.repository, tag)


def read(client: RegistryClient, reference: ImageReference, settings: IndexSettings) -> ExistingImage:
    """Read the image, which must be complete, and check that its tag may move.

    Raises `InvalidInput` for invalid arguments or an incomplete image, `TagConflict` for an immutable tag.
    """
    if settings.soci.version is not IndexVersion.V2:
        raise InvalidInput("an existing image can only get a v2 SOCI index; v1 is created at build time")
    if reference.target is None:
        raise InvalidInput(f"{reference} does not identify an image", advice="Add a tag or a digest.")
    if settings.suffix and reference.tag is None:
        raise InvalidInput("a suffix requires a tag, but the reference has none")
    new_tag = check_tag(reference.tag + settings.suffix) if reference.tag else None
    findings = Findings()
    graph = read_graph(client, reference.repository, reference.target, findings)
    if findings.found or not graph.images:
        lines = "\n".join(f"  - {each}" for each in findings.found)
        raise InvalidInput(f"{reference} cannot be indexed, because it is incomplete:\n{lines}".rstrip(":\n"))
    moves = new_tag is not None and not settings.suffix and not settings.dry_run
    if moves and not settings.mutability.allows_moving(new_tag or ""):
        raise TagConflict(
            f"the tag {new_tag} is immutable, but the indexed image has a different digest",
            advice="Set a suffix to publish the indexed image as <tag><suffix>.",
        )
    return ExistingImage(client, reference, settings, new_tag, graph)
