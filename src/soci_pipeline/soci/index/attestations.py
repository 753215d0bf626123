"""Attestations that follow their image when indexing gives it a new digest.

BuildKit hangs them into the image index as manifests of platform unknown/unknown, annotated with the digest of their
image (BuildKit, docs/attestations/attestation-storage.md). Newer versions write them as OCI artifacts, whose `subject`
is the image manifest; it follows the image, or the image would have no referrers. The in-toto statements inside name
that digest as `subject` too; verifiers reject one that names another. Unsigned statements are rewritten. A signed one
cannot be, and stays as it is: it speaks of the image before it was indexed, which has the same layers and config.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.annotations import REFERENCE_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageManifest
from soci_pipeline.oci.media_types import IMAGE_MANIFESTS, IN_TOTO

_MOST_STATEMENT_BYTES: Final = 16 * MAX_MANIFEST_BYTES
"""An SBOM of a large image has tens of megabytes; a larger statement is left as it is."""


def follow_all(
    entries: Sequence[Descriptor], renamed: Mapping[Digest, Descriptor], source: Layout, target: Layout
) -> tuple[Descriptor, ...]:
    """Each entry as `follow` returns it; what refers to a changed entry, as its signature does, follows that one."""
    known, followed = dict(renamed), list(entries)
    for position in _referred_first(entries, source):
        after = follow(entries[position], known, source, target)
        if after != entries[position]:
            followed[position] = known[entries[position].digest] = after
    return tuple(followed)


def _referred_first(entries: Sequence[Descriptor], source: Layout) -> Iterator[int]:
    """The positions of the entries, each after those of the entries that it refers to."""
    refers = [_referred(entry, source) for entry in entries]
    pending = list(range(len(entries)))
    while pending:
        waiting = {str(entries[position].digest) for position in pending}
        ready = [position for position in pending if waiting.isdisjoint(refers[position])]
        # Annotations may name each other in a circle; then any order will do.
        yield from ready or pending
        pending = [position for position in pending if position not in ready] if ready else []


def _referred(entry: Descriptor, source: Layout) -> set[str]:
    """The digests of the other manifests that an entry refers to, by its annotation or its manifest's `subject`."""
    found = {entry.annotations.get(REFERENCE_DIGEST, "")}
    if entry.media_type in IMAGE_MANIFESTS and source.has(entry):
        subject = source.read_document(entry).subject
        found |= set() if subject is None else {str(subject.digest)}
    return found - {str(entry.digest)}


def follow(descriptor: Descriptor, renamed: Mapping[Digest, Descriptor], source: Layout, target: Layout) -> Descriptor:
    """The descriptor of an attestation, or of another artifact, after its image got a new descriptor.

    The image is the one that the descriptor's annotation or the manifest's `subject` names. What had to be rewritten is
    stored in ``target``; the rest of its graph is for the caller to take over.
    """
    annotated = _annotated(descriptor, renamed)
    if annotated is descriptor and (descriptor.media_type not in IMAGE_MANIFESTS or not source.has(descriptor)):
        return descriptor
    manifest = source.read_document(descriptor)
    if not isinstance(manifest, ImageManifest):
        return annotated
    subject = _followed(manifest.subject, renamed)
    if annotated is descriptor and subject is manifest.subject:
        return descriptor
    rewritten = {layer.digest: _statement(layer, renamed, source, target) for layer in manifest.layers}
    changed = {before: after.digest for before, after in rewritten.items() if after.digest != before}
    if not changed and subject is manifest.subject:
        return annotated
    if changed:
        layers = tuple(rewritten[layer.digest].annotated(annotations=layer.annotations) for layer in manifest.layers)
        manifest = manifest.replaced(layers=layers, config=_config(manifest.config, changed, source, target))
    stored = target.add_document(manifest.replaced(subject=subject))
    return annotated.annotated(media_type=stored.media_type, digest=stored.digest, size=stored.size, data="")


def _annotated(descriptor: Descriptor, renamed: Mapping[Digest, Descriptor]) -> Descriptor:
    """The same descriptor where its annotation names no image that was renamed."""
    named = descriptor.annotations.get(REFERENCE_DIGEST, "")
    new = next((after for before, after in renamed.items() if before == named and before != after.digest), None)
    if new is None:
        return descriptor
    return descriptor.annotated(annotations=descriptor.annotations | {REFERENCE_DIGEST: str(new.digest)})


def _followed(subject: Descriptor | None, renamed: Mapping[Digest, Descriptor]) -> Descriptor | None:
    """The same subject where it is nothing that was renamed."""
    new = None if subject is None else renamed.get(subject.digest)
    return subject if subject is None or new is None or new.digest == subject.digest else new.plain


def _statement(layer: Descriptor, renamed: Mapping[Digest, Descriptor], source: Layout, target: Layout) -> Descriptor:
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


def _rename(subjects: Any, renamed: Mapping[Digest, Descriptor]) -> bool:
    hexes = {before.hex: after.digest.hex for before, after in renamed.items() if before != after.digest}
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
