"""Artifacts in an image index: attestations follow their image by `subject` too, and others do not pass for images."""

import base64
import json
from pathlib import Path

import pytest

from soci_pipeline.errors import JoinRefused
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_index, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_MANIFEST
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.collect import collect, reader
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.reindex.index import index_existing
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.soci.index.convert import Conversion, convert
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport, verify
from tests.support.branches import branch_v2
from tests.support.images import (
    AMD64,
    ARM64,
    add_artifact,
    add_attestation,
    add_image,
    as_artifact,
    gzip_layer,
)
from tests.support.indexed import SPAN, some_layers
from tests.support.published import REPOSITORY, tag, upload_joined
from tests.support.registries import noise, with_and_without_referrers

OPTIONS = SociOptions(span_size=SPAN, min_layer_size=1000)
KIND = "application/vnd.example+type"
SIGNED = json.dumps(
    {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.b64encode(b'{"_type": "https://in-toto.io/Statement/v1"}').decode(),
        "signatures": [{"sig": "AAAA"}],
    }
).encode()

referrers_api = with_and_without_referrers


def pushed(client: RegistryClient, layout: Layout, folder: Path, *entries: Descriptor) -> Conversion:
    """Convert an image index of some entries, and push the result under the tag v1."""
    layout.set_roots([layout.add_document(ImageIndex(manifests=entries))])
    made = convert(layout, folder / "converted", options=OPTIONS)
    push_graph(made.layout, made.root, client, REPOSITORY, tag="v1")
    return made


def listed(client: RegistryClient, name: str = "v1") -> tuple[Descriptor, ...]:
    return parse_image_index(client.manifests.get(REPOSITORY, name)[1]).manifests


def manifest_of(client: RegistryClient, entry: Descriptor) -> ImageManifest:
    return parse_image_manifest(client.manifests.get(REPOSITORY, entry.digest)[1])


def verified(client: RegistryClient, reference: str = "v1") -> VerificationReport:
    return verify(client, REPOSITORY, reference, mode="all")


@pytest.mark.parametrize("payload", [None, SIGNED], ids=["unsigned", "signed"])
def test_the_subject_of_an_attestation_follows_its_image_and_the_image_has_it_as_a_referrer(
    client: RegistryClient, layout: Layout, tmp_path: Path, payload: bytes | None
) -> None:
    image = add_image(layout, AMD64)
    attestation = as_artifact(layout, add_attestation(layout, image, payload=payload), image)

    made = pushed(client, layout, tmp_path, image, attestation)

    (new,) = [entry for entry in listed(client) if entry.platform == AMD64 and not entry.artifact_type]
    (followed,) = [entry for entry in listed(client) if is_attestation(entry)]
    assert new.digest != image.digest
    assert manifest_of(client, followed).subject == new.plain
    assert followed.annotations[REFERENCE_DIGEST] == new.digest
    assert [each.digest for each in client.referrers.list(REPOSITORY, new.digest)] == [followed.digest]
    assert client.referrers.list(REPOSITORY, image.digest) == ()
    assert made.images[0].attestations == (followed,)
    assert verified(client).findings == ()


def test_an_artifact_whose_subject_is_the_image_follows_it_and_its_own_signature_follows_that(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    image = add_image(layout, AMD64)
    bill = add_artifact(layout, KIND, subject=image)
    signature = add_artifact(layout, "application/vnd.example.signature", subject=bill)

    # The signature comes first, so that one pass over the index is not enough.
    pushed(client, layout, tmp_path, signature, image, bill)

    first, new, second, _ = listed(client)
    assert manifest_of(client, second).subject == new.plain
    assert manifest_of(client, first).subject == second.plain
    assert verified(client).findings == ()


def test_equal_attestations_of_two_platforms_each_follow_their_own_image(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    images = [add_image(layout, platform) for platform in (AMD64, ARM64)]
    attestations = [add_attestation(layout, image, payload=SIGNED) for image in images]
    assert attestations[0].digest == attestations[1].digest

    pushed(client, layout, tmp_path, *images, *attestations)

    entries = listed(client)
    assert [entry.annotations[REFERENCE_DIGEST] for entry in entries[2:4]] == [entry.digest for entry in entries[:2]]


def test_artifacts_follow_an_image_that_is_indexed_in_the_registry(client: RegistryClient, layout: Layout) -> None:
    image = add_image(layout, AMD64, some_layers())
    attestation = as_artifact(layout, add_attestation(layout, image, payload=SIGNED), image)
    bill = add_artifact(layout, KIND, subject=image)
    signature = add_artifact(layout, "application/vnd.example.signature", subject=bill)
    other = add_artifact(layout, KIND, data=b"has no subject")
    tag(client, layout, layout.add_document(ImageIndex(manifests=(signature, image, attestation, bill, other))), "v1")

    settings = IndexSettings(soci=OPTIONS, verify=VerifyMode.ALL)
    index_existing(client, ImageReference.parse(f"{client.registry}/{REPOSITORY}:v1"), settings)

    first, new, second, third, last, _ = listed(client)
    assert new.digest != image.digest
    assert [manifest_of(client, each).subject for each in (second, third)] == [new.plain, new.plain]
    assert manifest_of(client, first).subject == third.plain
    assert last == other
    assert {each.digest for each in client.referrers.list(REPOSITORY, new.digest)} == {second.digest, third.digest}
    assert verified(client).findings == ()


@pytest.mark.parametrize("mode", ["sample", "all"])
def test_a_subject_that_names_another_image_or_another_size_is_found(
    client: RegistryClient, layout: Layout, mode: str
) -> None:
    image, gone = add_image(layout, AMD64), add_image(layout, ARM64)
    plain = add_attestation(layout, image)
    bad = [
        as_artifact(layout, plain, gone),
        as_artifact(layout, plain, image.annotated(size=image.size + 1)),
        as_artifact(layout, plain, image.annotated(media_type="application/vnd.docker.distribution.manifest.v2+json")),
        add_artifact(layout, KIND, subject=gone),
    ]
    tag(client, layout, layout.add_document(ImageIndex(manifests=(image, *bad))), "v1")

    report = verify(client, REPOSITORY, "v1", mode=mode)

    assert {finding.where.split()[1] for finding in report.findings} == {each.digest for each in bad}
    assert all("its subject" in finding.what for finding in report.findings)


def test_an_artifact_may_speak_of_another_manifest_of_the_repository(client: RegistryClient, layout: Layout) -> None:
    image, other = add_image(layout, AMD64), add_image(layout, ARM64)
    tag(client, layout, other, "other")
    artifact = add_artifact(layout, KIND, subject=other)
    tag(client, layout, layout.add_document(ImageIndex(manifests=(image, artifact))), "v1")
    assert verified(client).findings == ()


def test_a_join_refuses_an_attestation_whose_subject_is_another_image(layout: Layout) -> None:
    image, gone = branch_v2(layout, AMD64, attested=True), add_image(layout, ARM64)
    wrong = as_artifact(layout, image.attestations[0], gone)
    right = as_artifact(layout, image.attestations[0], image.manifest)

    index = join([image.model_copy(update={"attestations": (right,)})], annotations={}, read=layout.read)
    assert right.digest in {each.digest for each in index.manifests}
    with pytest.raises(JoinRefused, match=f"has the subject {gone.digest}"):
        join([image.model_copy(update={"attestations": (wrong,)})], annotations={}, read=layout.read)


def chart(layout: Layout) -> Descriptor:
    """A Helm chart as older tools push it: a config of its own type, and nothing that says artifact."""
    config = layout.add_bytes(b'{"name": "chart", "version": "1"}', "application/vnd.cncf.helm.config.v1+json")
    content = layout.add_bytes(b"chart\n", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    return layout.add_document(ImageManifest(config=config, layers=(content,)))


@pytest.mark.parametrize("declared", [False, True], ids=["plain entry", "entry with its type"])
def test_an_artifact_next_to_an_image_is_not_taken_for_one(
    client: RegistryClient, layout: Layout, tmp_path: Path, declared: bool
) -> None:
    image, artifact = add_image(layout, AMD64), add_artifact(layout, KIND)
    artifact = artifact.annotated(artifact_type=KIND) if declared else artifact

    made = pushed(client, layout, tmp_path, image, artifact, chart(layout))

    report = verified(client)
    assert report.findings == ()
    assert [each.platform for each in report.platforms] == [AMD64]
    assert artifact in listed(client)
    (record,) = collect(client, REPOSITORY, [made.root.digest])
    assert record.platform == AMD64
    settings = IndexSettings(soci=OPTIONS)
    assert index_existing(client, ImageReference.parse(f"{client.registry}/{REPOSITORY}:v1"), settings).changed is False


def test_an_index_of_artifacts_alone_is_not_an_image(client: RegistryClient, layout: Layout) -> None:
    tag(client, layout, layout.add_document(ImageIndex(manifests=(add_artifact(layout, KIND),))), "v1")
    assert [finding.what for finding in verified(client).findings] == ["it contains no readable image"]


def test_an_artifact_that_is_listed_for_a_platform_is_still_found_out(client: RegistryClient, layout: Layout) -> None:
    claimed = add_artifact(layout, KIND).annotated(platform=AMD64)
    tag(client, layout, layout.add_document(ImageIndex(manifests=(add_image(layout, ARM64), claimed))), "v1")
    found = verify(client, REPOSITORY, "v1", mode="all", platforms=[AMD64, ARM64]).findings
    assert [finding.what for finding in found] == ["there is no image for linux/amd64"]


def test_platforms_that_share_every_layer_can_be_joined_again(
    client: RegistryClient, layout: Layout, tmp_path: Path
) -> None:
    shared = [gzip_layer({"data": noise(60_000)})]
    images = [add_image(layout, platform, shared) for platform in (AMD64, ARM64)]

    made = pushed(client, layout, tmp_path, *images)
    records = collect(client, REPOSITORY, [made.root.digest])
    index = join(records, annotations={}, read=reader(client, REPOSITORY), platforms=[AMD64, ARM64])

    entries = [each for each in index.manifests if IMAGE_MANIFEST_DIGEST in each.annotations]
    assert len({each.digest for each in entries}) == 1
    assert [each.annotations[IMAGE_MANIFEST_DIGEST] for each in entries] == [
        each.digest for each in index.manifests[:2]
    ]
    assert [each.platform for each in entries] == [AMD64, ARM64]
    joined = client.manifests.put(REPOSITORY, "joined", index.encode(), index.media_type)
    assert joined.digest == index.descriptor.digest
    assert verified(client, "joined").findings == ()
    assert verified(client).findings == ()


def test_the_joined_index_of_shared_layers_is_indexed_already(client: RegistryClient, layout: Layout) -> None:
    shared = [gzip_layer({"data": noise(60_000)})]
    amd, arm = (branch_v2(layout, platform, layers=shared) for platform in (AMD64, Platform("linux", "arm64")))
    root = upload_joined(client, layout, amd, arm)
    records = collect(client, REPOSITORY, [root.digest])
    assert [each.soci_index for each in records] == [amd.soci_index, arm.soci_index]
    assert {each.manifest.media_type for each in records} == {OCI_MANIFEST}
