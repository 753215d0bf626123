"""Update attestations when indexing gives their image a new digest.

BuildKit adds attestations to the image index as manifests of platform unknown/unknown, annotated with the digest of
their image (BuildKit, docs/attestations/attestation-storage.md). Newer versions write them as OCI artifacts, whose
`subject` is the image manifest; it is updated, so that the image keeps its referrers. The in-toto statements inside
contain the digest as `subject` too, and verifiers reject a statement with a different digest. Unsigned statements are
rewritten. Signed statements cannot be rewritten and stay unchanged: they attest the image before indexing, which has
the same layers and config.
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
"""Limit for statements that are rewritten. The SBOM of a large image has tens of megabytes."""


def follow_all(
    entries: Sequence[Descriptor], renamed: Mapping[Digest, Descriptor], source: Layout, target: Layout
) -> tuple[Descriptor, ...]:
    """Apply `follow` to each entry, and to entries that refer to a changed entry, such as its signature."""
    known, followed = dict(renamed), list(entries)
    for position in _referred_first(entries, source):
        after = follow(entries[position], known, source, target)
        if after != entries[position]:
            followed[position] = known[entries[position].digest] = after
    return tuple(followed)


def _referred_first(entries: Sequence[Descriptor], source: Layout) -> Iterator[int]:
    """Yield the positions of the entries in topological order: each after the entries that it refers to."""
    refers = [_referred(entry, source) for entry in entries]
    pending = list(range(len(entries)))
    while pending:
        waiting = {str(entries[position].digest) for position in pending}
        ready = [position for position in pending if waiting.isdisjoint(refers[position])]
        # Annotations may form a cycle; then the order does not matter.
        yield from ready or pending
        pending = [position for position in pending if position not in ready] if ready else []


def _referred(entry: Descriptor, source: Layout) -> set[str]:
    """Return the digests of other manifests that an entry refers to by annotation or `subject`."""
    found = {entry.annotations.get(REFERENCE_DIGEST, "")}
    if entry.media_type in IMAGE_MANIFESTS and source.has(entry):
        subject = source.read_document(entry).subject
        found |= set() if subject is None else {str(subject.digest)}
    return found - {str(entry.digest)}


def follow(descriptor: Descriptor, renamed: Mapping[Digest, Descriptor], source: Layout, target: Layout) -> Descriptor:
    """Return the descriptor of an attestation or another artifact, updated if its image is in ``renamed``.

    The image is identified by the descriptor's annotation or the manifest's `subject`. Rewritten documents are stored
    in ``target``; copying the rest of the graph is up to the caller.
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
    """Return the descriptor, with its annotation updated if that names a renamed image."""
    named = descriptor.annotations.get(REFERENCE_DIGEST, "")
    new = next((after for before, after in renamed.items() if before == named and before != after.digest), None)
    if new is None:
        return descriptor
    return descriptor.annotated(annotations=descriptor.annotations | {REFERENCE_DIGEST: str(new.digest)})


def _followed(subject: Descriptor | None, renamed: Mapping[Digest, Descriptor]) -> Descriptor | None:
    """Return the new descriptor of the subject if it was renamed, otherwise the subject itself."""
    new = None if subject is None else renamed.get(subject.digest)
    return subject if subject is None or new is None or new.digest == subject.digest else new.plain


def _statement(layer: Descriptor, renamed: Mapping[Digest, Descriptor], source: Layout, target: Layout) -> Descriptor:
    """Rewrite the subjects of an unsigned in-toto statement; return any other layer unchanged."""
    if layer.media_type != IN_TOTO or layer.size > _MOST_STATEMENT_BYTES:
        return layer
    document = _object(source.read(layer, limit=_MOST_STATEMENT_BYTES))
    # A signed statement is wrapped in an envelope (DSSE: payload, payloadType, signatures).
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
    """Update the config of an attestation manifest, which lists the digests of its statements as diff ids."""
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
