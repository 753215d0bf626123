"""The image that is to be indexed, as it was read from the registry."""

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
    """An image of a registry, and how it is to be indexed.

    ``new_tag`` is the tag that the indexed image gets; None for an image that was read by its digest.
    """

    client: RegistryClient
    reference: ImageReference
    settings: IndexSettings
    new_tag: str | None
    graph: ImageGraph

    @property
    def repository(self) -> str:
        """The name of the repository that has the image, and gets the indexed one."""
        return self.reference.repository

    def current(self, tag: str) -> Descriptor | None:
        """What is under a tag of the repository now."""
        return self.client.manifests.head(self.repository, tag)


def read(client: RegistryClient, reference: ImageReference, settings: IndexSettings) -> ExistingImage:
    """Read the image, which must be whole, and check that its tag may move.

    Raises `InvalidInput` for a request without a sense and for an image with parts missing, `TagConflict` for a tag
    that is immutable.
    """
    if settings.soci.version is not IndexVersion.V2:
        raise InvalidInput("an existing image gets a v2 SOCI index; v1 is made while it is built")
    if reference.target is None:
        raise InvalidInput(f"{reference} names no image", advice="Add a tag or a digest.")
    if settings.suffix and reference.tag is None:
        raise InvalidInput("a suffix goes behind a tag, and the reference has none")
    new_tag = check_tag(reference.tag + settings.suffix) if reference.tag else None
    findings = Findings()
    graph = read_graph(client, reference.repository, reference.target, findings)
    if findings.found or not graph.images:
        lines = "\n".join(f"  - {each}" for each in findings.found)
        raise InvalidInput(f"{reference} cannot be indexed, since it is not whole:\n{lines}".rstrip(":\n"))
    moves = new_tag is not None and not settings.suffix and not settings.dry_run
    if moves and not settings.mutability.allows_moving(new_tag or ""):
        raise TagConflict(
            f"the tag {new_tag} is immutable, and the indexed image has another digest",
            advice="Give a suffix: the indexed image is then published as <tag><suffix>.",
        )
    return ExistingImage(client, reference, settings, new_tag, graph)
