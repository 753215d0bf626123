"""Where a published image came from: an in-toto statement, attached to the image index once.

The statement (https://in-toto.io/Statement/v1) carries SLSA's provenance predicate (https://slsa.dev/spec/v1.0/provenance):
the source commit, what was asked for, the builder and its tools, and as by-products every layer with its zTOC or the
reason why it has none. Nothing in it is a time of day or the name of a run, so a commit gives the same bytes again. It
is a referrer of the index; a run that finds one of the same commit there adds none, even if tools were updated since.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.oci.annotations import REVISION
from soci_pipeline.oci.canonical_json import encode
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import IN_TOTO, OCI_EMPTY
from soci_pipeline.publish.annotations import without_credentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BlobUnknown, ManifestUnknown
from soci_pipeline.soci.index.records import LayerRecord, PlatformImage

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PREDICATE_TYPE = "in-toto.io/predicate-type"
BUILD_TYPE = "urn:soci-pipeline:publish-image:v1"
BUILDER_ID = "urn:soci-pipeline:builder:v1"

_EMPTY = b"{}"
_MAX_STATEMENT = 4 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """What the statement is made of, besides the images.

    ``parameters`` are what the publication was asked for, without secrets; ``tools`` are names and versions of what
    built it; ``builder`` says who runs the pipeline, as a URI. ``made_for`` has, for a signed attestation that could
    not follow its image to a new digest, the digests that it was made for.
    """

    source: str
    ref: str
    revision: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    builder: str = BUILDER_ID
    made_for: Mapping[Digest, Sequence[Digest]] = field(default_factory=dict)


def statement(name: str, index: Descriptor, images: Sequence[PlatformImage], origin: Origin) -> bytes:
    """The statement on an image index; ``name`` is its repository. Equal arguments give equal bytes."""
    source = without_credentials(origin.source)
    scheme = "git+" if "://" in source else ""
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"source": source, "ref": origin.ref} | _sorted(origin.parameters),
            "resolvedDependencies": [{"uri": f"{scheme}{source}", "digest": {"gitCommit": origin.revision}}],
        },
        "runDetails": {
            "builder": {"id": origin.builder, "version": dict(sorted(origin.tools.items()))},
            "byproducts": _byproducts(images, origin),
        },
    }
    return encode(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": index.digest.hex}}],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )


def attach(
    client: RegistryClient,
    repository: str,
    index: Descriptor,
    images: Sequence[PlatformImage],
    origin: Origin,
    *,
    name: str | None = None,
) -> tuple[Digest, bool]:
    """Attach the statement to an index that is in the registry; returns the referrer's digest, and whether it is new.

    ``name`` defaults to ``registry/repository``. Signed attestations of the images are looked at for the digests that
    they were made for. Raises `RegistryError`.
    """
    known = _attached(client, repository, index.digest, origin.revision)
    if known is not None:
        logger().info("%s already has its provenance: %s", index.digest, known)
        return known, False
    made_for = dict(origin.made_for) | signed_for(client, repository, images)
    complete = replace(origin, made_for=made_for)
    data = statement(name or f"{client.registry}/{repository}", index, images, complete)
    layer = client.blobs.upload_bytes(repository, data, IN_TOTO)
    manifest = ImageManifest(
        artifact_type=IN_TOTO,
        config=client.blobs.upload_bytes(repository, _EMPTY, OCI_EMPTY),
        layers=(layer.annotated(annotations={PREDICATE_TYPE: PREDICATE}),),
        subject=index.plain,
        annotations={PREDICATE_TYPE: PREDICATE, REVISION: origin.revision},
    )
    found = manifest.descriptor
    client.manifests.put(repository, found.digest, manifest.encode(), manifest.media_type)
    return found.digest, True


def signed_for(
    client: RegistryClient, repository: str, images: Sequence[PlatformImage]
) -> dict[Digest, tuple[Digest, ...]]:
    """For each attestation that is signed: the image digests that its statements name.

    A signature covers the digest that the image had before it was indexed; such an attestation is published as it is.
    """
    found: dict[Digest, tuple[Digest, ...]] = {}
    for attestation in (each for image in images for each in image.attestations):
        try:
            _, data = client.manifests.get(repository, attestation.digest)
            layers = parse_image_manifest(data).layers
            subjects = [
                subject
                for layer in layers
                if layer.size <= _MAX_STATEMENT
                for subject in _signed_subjects(client.blobs.read(repository, layer, _MAX_STATEMENT))
            ]
        except (BlobUnknown, InvalidInput, ManifestUnknown) as error:
            logger().warning("cannot read the attestation %s: %s", attestation.digest, error.reason)
            continue
        if subjects:
            found[attestation.digest] = tuple(sorted(set(subjects)))
    return found


def _signed_subjects(data: bytes) -> list[Digest]:
    """The sha256 subjects of a statement in a DSSE envelope or a Sigstore bundle; none for an unsigned statement."""
    try:
        document = json.loads(data)
        envelope = document.get("dsseEnvelope", document)
        if not envelope.get("signatures"):
            return []
        inside = json.loads(base64.b64decode(envelope["payload"], validate=True))
        return [Digest(f"sha256:{subject['digest']['sha256']}") for subject in inside["subject"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error, InvalidInput):
        return []


def _attached(client: RegistryClient, repository: str, subject: Digest, revision: str) -> Digest | None:
    """The provenance of ours that an index has already."""
    for entry in client.referrers.list(repository, subject, IN_TOTO):
        try:
            descriptor, data = client.manifests.get(repository, entry.digest)
            annotations = parse_image_manifest(data, media_type=descriptor.media_type).annotations
        except (InvalidInput, ManifestUnknown):
            continue
        if annotations.get(PREDICATE_TYPE) == PREDICATE and annotations.get(REVISION) == revision:
            return entry.digest
    return None


def _byproducts(images: Sequence[PlatformImage], origin: Origin) -> list[dict[str, Any]]:
    ordered = sorted(images, key=lambda image: (image.platform.normalised(), image.manifest.digest))
    found = []
    for image in ordered:
        platform = {"platform": str(image.platform)}
        found.append(_resource("image", image.manifest.digest, platform))
        if image.soci_index is not None:
            annotations = platform | {"version": image.soci_version.value}
            found.append(_resource("soci-index", image.soci_index.digest, annotations))
        found += [_resource("layer", layer.digest, platform | _layer_facts(layer)) for layer in image.layers]
        for attestation in sorted(image.attestations, key=lambda each: each.digest):
            made_for = ",".join(origin.made_for.get(attestation.digest, ()))
            facts = platform | ({"signed-for": made_for} if made_for else {})
            found.append(_resource("attestation", attestation.digest, facts))
    return found


def _layer_facts(layer: LayerRecord) -> dict[str, str]:
    if layer.ztoc is not None:
        return {"ztoc": str(layer.ztoc)}
    return {"reason": layer.reason.value} if layer.reason is not None else {}


def _resource(name: str, digest: Digest, annotations: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.hex}, "annotations": dict(sorted(annotations.items()))}


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_sorted(each) for each in value]
    return value
