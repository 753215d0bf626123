"""Verification of in-toto statements: a subject that names an image must name the attested image.

BuildKit names an image `_` or with a package URL (BuildKit, docs/attestations/attestation-storage.md); other subjects,
such as files, are not compared. Signed statements (DSSE) are not compared either: they describe the image before it was
indexed.
"""

import json
from collections.abc import Iterator
from typing import Any

from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph
from soci_pipeline.oci.annotations import REFERENCE_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES
from soci_pipeline.oci.media_types import IN_TOTO
from soci_pipeline.registry.client import RegistryClient

_MOST_BYTES = 16 * MAX_MANIFEST_BYTES


def check_statements(client: RegistryClient, repository: str, graph: ImageGraph, findings: Findings) -> None:
    """Add a finding for every statement whose subject is not the attested image; only count those too large to read."""
    for entry in graph.index.manifests if graph.index is not None else ():
        manifest = graph.artifacts.get(entry.digest)
        image = entry.annotations.get(REFERENCE_DIGEST, "")
        if manifest is None or not is_attestation(entry):
            continue
        for layer in manifest.layers:
            if layer.media_type != IN_TOTO:
                continue
            if layer.size > _MOST_BYTES:
                findings.count("statements_unread")
                continue
            _check(client, repository, f"attestation {entry.digest} statement {layer.digest}", layer, image, findings)


def _check(
    client: RegistryClient, repository: str, where: str, layer: Descriptor, image: str, findings: Findings
) -> None:
    with findings.catching(where):
        data = client.blobs.read(repository, layer, _MOST_BYTES)
        findings.count("statements")
        for named in _named_images(data):
            if f"sha256:{named}" != image:
                findings.add(where, f"its subject is sha256:{named[:100]}, but the attestation is listed for {image}")
                return


def _named_images(data: bytes) -> Iterator[str]:
    """Yield the sha256 digests (hex) of the images that an unsigned statement names."""
    try:
        statement = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(statement, dict) or "signatures" in statement:
        return
    if not str(statement.get("_type", "")).startswith("https://in-toto.io/Statement/"):
        return
    subjects: Any = statement.get("subject")
    for subject in subjects if isinstance(subjects, list) else ():
        name = subject.get("name") if isinstance(subject, dict) else None
        digests = subject.get("digest") if isinstance(subject, dict) else None
        if isinstance(name, str) and (name == "_" or name.startswith("pkg:")) and isinstance(digests, dict):
            yield from (digest for digest in (digests.get("sha256"),) if isinstance(digest, str))
