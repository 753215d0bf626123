"""Image manifests and image indexes as immutable values with a byte-exact encoding (image-spec, both documents).

The equivalent Docker types are parsed too. `encode` returns compact JSON in the key order of the reference
implementations, so that equal values have equal digests.
"""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.media_types import (
    IMAGE_INDEXES,
    IMAGE_MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
)

MAX_MANIFEST_BYTES = 4 << 20
"""Size limit: registries accept manifests up to 4 MiB (distribution-spec, "Pushing Manifests")."""

MAX_LISTED = 1000
"""Limit for the entries of an image index. An image has a few dozen manifests for all its platforms, but 4 MiB can hold
20,000 entries, each of which may be an index with as many more."""

MAX_DEPTH = 8
"""Limit for nested image indexes; one level is usual, and two occur."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    media_type: str
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: dict[str, str] = Field(default_factory=dict)

    def _body(self) -> dict[str, Any]:
        raise AssertionError("each kind of document has its own body")

    def to_json(self) -> dict[str, Any]:
        """Return the document as an ordered mapping."""
        fields: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            fields["artifactType"] = self.artifact_type
        fields |= self._body()
        if self.subject is not None:
            fields["subject"] = self.subject.to_json()
        if self.annotations:
            fields["annotations"] = canonical_json.sorted_map(self.annotations)
        return fields

    def encode(self) -> bytes:
        """Return the exact bytes to store and hash."""
        return canonical_json.encode(self.to_json())

    @property
    def descriptor(self) -> Descriptor:
        """Media type, digest and size of the encoded document."""
        data = self.encode()
        return Descriptor(media_type=self.media_type, digest=Digest.of(data), size=len(data))

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return self.model_copy(update=changes)


class ImageManifest(_Document):
    """One image (or artifact): a config and its layers."""

    media_type: str = OCI_MANIFEST
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()

    def _body(self) -> dict[str, Any]:
        return {"config": self.config.to_json(), "layers": [layer.to_json() for layer in self.layers]}

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The blobs that must be pushed before this manifest."""
        return (self.config, *self.layers)


class ImageIndex(_Document):
    """A list of manifests: one for each platform, and others such as SOCI indexes and attestations."""

    media_type: str = OCI_INDEX
    manifests: tuple[Descriptor, ...] = ()

    def _body(self) -> dict[str, Any]:
        return {"manifests": [manifest.to_json() for manifest in self.manifests]}

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests that must be pushed before this index."""
        return self.manifests

    def check_listed(self) -> None:
        """Raise `InvalidInput` if the index has more than `MAX_LISTED` entries."""
        if len(self.manifests) > MAX_LISTED:
            raise InvalidInput(f"an image index of {len(self.manifests)} entries; at most {MAX_LISTED} are allowed")


def parse(
    data: bytes, *, media_type: str | None = None, any_algorithm: bool = False, limit: int = MAX_MANIFEST_BYTES
) -> ImageManifest | ImageIndex:
    """Parse an OCI or Docker manifest or index.

    ``media_type`` comes from the registry or the descriptor and must match the document's ``mediaType`` if it has one.
    Children must have sha256 digests, which images are read and indexed by, unless ``any_algorithm`` is set.

    Raises `InvalidInput` if the document is not a valid manifest or index or is larger than ``limit`` bytes.
    """
    if len(data) > limit:
        raise InvalidInput(f"a manifest of {len(data)} bytes exceeds the limit of {limit}")
    fields = _object(data)
    kind = _kind(fields, media_type)
    try:
        document = _document(fields, kind)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"not a manifest of type {kind}: {error!s:.300}") from error
    other = next((child.digest for child in document.children if child.digest.algorithm != SHA256), None)
    if other is not None and not any_algorithm:
        raise InvalidInput(f"a manifest that refers to {other[:40]}: only sha256 digests are supported")
    return document


def _document(fields: dict[str, Any], kind: str) -> ImageManifest | ImageIndex:
    shared = {
        "media_type": kind,
        "artifact_type": fields.get("artifactType") or "",
        "subject": Descriptor.from_json(fields["subject"]) if fields.get("subject") else None,
        "annotations": fields.get("annotations") or {},
    }
    if kind in IMAGE_INDEXES:
        return ImageIndex(manifests=_descriptors(fields, "manifests"), **shared)
    return ImageManifest(config=Descriptor.from_json(fields["config"]), layers=_descriptors(fields, "layers"), **shared)


def parse_image_manifest(data: bytes, *, media_type: str | None = None) -> ImageManifest:
    """Like `parse`, but raise `InvalidInput` for an image index."""
    document = parse(data, media_type=media_type)
    if not isinstance(document, ImageManifest):
        raise InvalidInput("expected an image manifest, not an image index")
    return document


def parse_image_index(
    data: bytes, *, media_type: str | None = None, any_algorithm: bool = False, limit: int = MAX_MANIFEST_BYTES
) -> ImageIndex:
    """Like `parse`, but raise `InvalidInput` for an image manifest."""
    document = parse(data, media_type=media_type, any_algorithm=any_algorithm, limit=limit)
    if not isinstance(document, ImageIndex):
        raise InvalidInput("expected an image index, not an image manifest")
    return document


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not valid JSON: {error!s:.200}") from error
    if not isinstance(fields, dict) or fields.get("schemaVersion") != 2:
        raise InvalidInput("not an image manifest or index of schema version 2")
    return fields


def _kind(fields: dict[str, Any], media_type: str | None) -> str:
    own = fields.get("mediaType") or None
    given = media_type.split(";")[0].strip() if media_type else None
    if own and given and own != given:
        raise InvalidInput(f"a manifest with the media type {str(own)[:100]} was served as {given[:100]}")
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise InvalidInput("a document must not be both an image manifest and an image index (CVE-2021-41190)")
    kind = own or given or (OCI_INDEX if "manifests" in fields else OCI_MANIFEST)
    if not isinstance(kind, str) or kind not in IMAGE_INDEXES | IMAGE_MANIFESTS:
        raise InvalidInput(f"not a manifest media type: {str(kind)[:100]}")
    if (kind in IMAGE_INDEXES) != ("manifests" in fields):
        raise InvalidInput(f"the document's fields do not fit its media type {kind}")
    return kind


def _descriptors(fields: dict[str, Any], name: str) -> tuple[Descriptor, ...]:
    return tuple(Descriptor.from_json(item) for item in fields.get(name) or ())
