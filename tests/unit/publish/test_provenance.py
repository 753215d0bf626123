"""Provenance: the same bytes for a commit, attached once, with every layer and no secret."""

import base64
import json
from dataclasses import replace
from typing import Any

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import parse_image_manifest
from soci_pipeline.oci.media_types import IN_TOTO
from soci_pipeline.publish.provenance import PREDICATE, PREDICATE_TYPE, Origin, attach, signed_for, statement
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import LayerRecord, PlatformImage
from soci_pipeline.soci.reasons import Reason
from tests.support.branches import branch_v2
from tests.support.images import AMD64, ARM64, add_attestation
from tests.support.published import REPOSITORY, upload_joined
from tests.support.registries import with_and_without_referrers

ORIGIN = Origin(
    source="https://robot:hunter2@git.example.com/app.git",
    ref="refs/heads/main",
    revision="ab" * 20,
    parameters={"platforms": ["linux/amd64", "linux/arm64"], "build_args": {"b": "2", "a": "1"}},
    tools={"soci-pipeline": "0.1.0", "buildkit": "0.13"},
)


referrers_api = with_and_without_referrers


def images_of(layout: Layout) -> list[PlatformImage]:
    images = []
    for platform in (ARM64, AMD64):
        image = branch_v2(layout, platform, attested=True)
        layers = parse_image_manifest(layout.read(image.manifest)).layers
        first, second = (
            LayerRecord(digest=layer.digest, size=layer.size, media_type=layer.media_type) for layer in layers
        )
        records = (
            first.model_copy(update={"ztoc": Digest.of(b"ztoc")}),
            second.model_copy(update={"reason": Reason.TOO_SMALL}),
        )
        images.append(image.model_copy(update={"layers": records}))
    return images


def statements(client: RegistryClient, index: Descriptor) -> list[dict[str, Any]]:
    found = []
    for entry in client.referrers.list(REPOSITORY, index.digest, IN_TOTO):
        manifest = parse_image_manifest(client.manifests.get(REPOSITORY, entry.digest)[1])
        assert manifest.layers[0].annotations == {PREDICATE_TYPE: PREDICATE}
        found.append(json.loads(client.blobs.read(REPOSITORY, manifest.layers[0])))
    return found


def test_the_statement_names_commit_tools_and_every_layer_with_its_ztoc_or_reason(
    client: RegistryClient, layout: Layout
) -> None:
    images = images_of(layout)
    index = upload_joined(client, layout, *images)

    digest, added = attach(client, REPOSITORY, index, images, ORIGIN)

    assert added
    assert [entry.digest for entry in client.referrers.list(REPOSITORY, index.digest)] == [digest]
    (found,) = statements(client, index)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [{"name": f"{client.registry}/{REPOSITORY}", "digest": {"sha256": index.digest.hex}}]
    definition, details = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    assert definition["resolvedDependencies"] == [
        {"uri": "git+https://git.example.com/app.git", "digest": {"gitCommit": "ab" * 20}}
    ]
    assert definition["externalParameters"]["ref"] == "refs/heads/main"
    assert details["builder"]["version"] == {"buildkit": "0.13", "soci-pipeline": "0.1.0"}
    layers = [each["annotations"] for each in details["byproducts"] if each["name"] == "layer"]
    assert layers == [
        {"platform": "linux/amd64", "ztoc": Digest.of(b"ztoc")},
        {"platform": "linux/amd64", "reason": "too-small"},
        {"platform": "linux/arm64", "ztoc": Digest.of(b"ztoc")},
        {"platform": "linux/arm64", "reason": "too-small"},
    ]
    assert "hunter2" not in json.dumps(found)


def test_a_second_run_of_the_commit_adds_none_even_with_newer_tools(client: RegistryClient, layout: Layout) -> None:
    images = images_of(layout)
    index = upload_joined(client, layout, *images)
    first, _ = attach(client, REPOSITORY, index, images, ORIGIN)

    again = attach(client, REPOSITORY, index, images, replace(ORIGIN, tools={"soci-pipeline": "0.2.0"}))

    assert again == (first, False)
    assert len(statements(client, index)) == 1


def test_another_commit_with_the_same_bytes_gets_its_own(client: RegistryClient, layout: Layout) -> None:
    images = images_of(layout)
    index = upload_joined(client, layout, *images)
    attach(client, REPOSITORY, index, images, ORIGIN)

    assert attach(client, REPOSITORY, index, images, replace(ORIGIN, revision="cd" * 20))[1]
    assert len(statements(client, index)) == 2


def test_the_order_of_the_branches_and_of_the_parameters_does_not_matter(layout: Layout) -> None:
    images = images_of(layout)
    turned = {"build_args": {"a": "1", "b": "2"}, "platforms": ORIGIN.parameters["platforms"]}

    first = statement("app", images[0].manifest, images, ORIGIN)
    second = statement("app", images[0].manifest, images[::-1], replace(ORIGIN, parameters=turned))

    assert first == second


def test_a_signed_attestation_is_linked_to_the_digest_that_it_was_made_for(
    client: RegistryClient, layout: Layout
) -> None:
    image = branch_v2(layout, AMD64)
    before = Digest.of(b"the image before it was indexed")
    inside = {"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": {"sha256": before.hex}}]}
    envelope = {
        "payload": base64.b64encode(json.dumps(inside).encode()).decode(),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": "AAAA"}],
    }
    signed = add_attestation(layout, image.manifest, payload=json.dumps(envelope).encode())
    plain = add_attestation(layout, image.manifest)
    image = image.model_copy(update={"attestations": (signed, plain)})
    index = upload_joined(client, layout, image)

    assert signed_for(client, REPOSITORY, [image]) == {signed.digest: (before,)}
    attach(client, REPOSITORY, index, [image], ORIGIN)

    (found,) = statements(client, index)
    facts = {
        each["digest"]["sha256"]: each["annotations"]
        for each in found["predicate"]["runDetails"]["byproducts"]
        if each["name"] == "attestation"
    }
    assert facts == {
        signed.digest.hex: {"platform": "linux/amd64", "signed-for": before},
        plain.digest.hex: {"platform": "linux/amd64"},
    }
