"""Attestations that follow their image when indexing gives it a new digest.

BuildKit hangs them into the image index as manifests of platform unknown/unknown, annotated with the digest of their
image (BuildKit, docs/attestations/attestation-storage.md). The in-toto statements inside name that digest as `subject`
too; verifiers reject one that names another. Unsigned statements are rewritten. A signed one cannot be, and stays as it
is: it speaks of the image before it was indexed, which has the same layers and config.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.annotations import REFERENCE_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageManifest
from soci_pipeline.oci.media_types import IN_TOTO

_MOST_STATEMENT_BYTES: Final = 16 * MAX_MANIFEST_BYTES
"""An SBOM of a large image has tens of megabytes; a larger statement is left as it is."""


def follow(descriptor: Descriptor, renamed: Mapping[Digest, Digest], source: Layout, target: Layout) -> Descriptor:
    """The descriptor of an attestation after its image went from one digest to another.

    What had to be rewritten is stored in ``target``; the rest of its graph is for the caller to take over.
    """
    named = descriptor.annotations.get(REFERENCE_DIGEST, "")
    new = next((str(after) for before, after in renamed.items() if before == named), None)
    if new is None:
        return descriptor
    annotated = descriptor.annotated(annotations=descriptor.annotations | {REFERENCE_DIGEST: new})
    manifest = source.read_document(descriptor)
    if not isinstance(manifest, ImageManifest):
        return annotated
    rewritten = {layer.digest: _statement(layer, renamed, source, target) for layer in manifest.layers}
    changed = {before: after.digest for before, after in rewritten.items() if after.digest != before}
    if not changed:
        return annotated
    layers = tuple(rewritten[layer.digest].annotated(annotations=layer.annotations) for layer in manifest.layers)
    config = _config(manifest.config, changed, source, target)
    stored = target.add_document(manifest.replaced(layers=layers, config=config))
    return annotated.annotated(media_type=stored.media_type, digest=stored.digest, size=stored.size)


def _statement(layer: Descriptor, renamed: Mapping[Digest, Digest], source: Layout, target: Layout) -> Descriptor:
    """An unsigned in-toto statement with its subjects renamed; anything else as it is."""
    if layer.media_type != IN_TOTO or layer.size > _MOST_STATEMENT_BYTES:
        return layer
    document = _object(source.read(layer, limit=_MOST_STATEMENT_BYTES))
    # A signed statement is an envelope of another shape (DSSE: payload, payloadType, signatures).
    if document is None or not str(document.get("_type", "")).startswith("https://in-toto.io/Statement/"):
        return layer
    if "signatures" in document or not _rename(document.get("subject"), renamed):
        return layer
    return target.add_bytes(canonical_json.encode(document), layer.media_type)


def _rename(subjects: Any, renamed: Mapping[Digest, Digest]) -> bool:
    hexes = {before.hex: after.hex for before, after in renamed.items()}
    changed = False
    for subject in subjects if isinstance(subjects, list) else ():
        digests = subject.get("digest") if isinstance(subject, dict) else None
        if isinstance(digests, dict) and digests.get("sha256") in hexes:
            digests["sha256"] = hexes[digests["sha256"]]
            changed = True
    return changed


def _config(config: Descriptor, changed: Mapping[Digest, Digest], source: Layout, target: Layout) -> Descriptor:
    """The config of an attestation manifest names its statements as diff ids."""
    if config.size > MAX_MANIFEST_BYTES:
        return config
    document = _object(source.read(config))
    rootfs = document.get("rootfs") if document is not None else None
    if document is None or not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids"), list):
        return config
    names = {str(before): str(after) for before, after in changed.items()}
    rootfs["diff_ids"] = [names.get(item, item) if isinstance(item, str) else item for item in rootfs["diff_ids"]]
    stored = target.add_bytes(canonical_json.encode(document), config.media_type)
    return stored.annotated(annotations=config.annotations)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
