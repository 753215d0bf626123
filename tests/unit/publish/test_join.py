"""The join: one image index from the branches, the same bytes for the same set, and every problem named at once."""

import json
from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.errors import InvalidInput, JoinRefused, SociPipelineError
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, SOCI_INDEX_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, parse_image_index, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_INDEX, SOCI_INDEX_V2
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.annotations import commit_annotations
from soci_pipeline.publish.join import join
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.branches import branch_plain, branch_v1, branch_v2, soci_index
from tests.support.images import AMD64, ARM64, add_image

ARM64_V8 = Platform("linux", "arm64", "v8")
ARM_V7 = Platform("linux", "arm", "v7")
S390X = Platform("linux", "s390x")
OTHER = Digest.of(b"something else")


def joined(layout: Layout, *images: PlatformImage, platforms: tuple[Platform, ...] | None = None) -> ImageIndex:
    return join(images, annotations={"a": "b"}, read=layout.read, platforms=platforms)


def refusal(layout: Layout, *images: PlatformImage, platforms: tuple[Platform, ...] | None = None) -> str:
    with pytest.raises(JoinRefused) as caught:
        joined(layout, *images, platforms=platforms)
    return caught.value.reason


def with_soci(image: PlatformImage, **changes: object) -> PlatformImage:
    assert image.soci_index is not None
    return image.model_copy(update={"soci_index": image.soci_index.annotated(**changes)})


def test_images_come_first_then_attestations_then_soci_indexes(layout: Layout) -> None:
    arm, amd = branch_v2(layout, ARM64, attested=True), branch_v2(layout, AMD64, attested=True)

    index = joined(layout, arm, amd, platforms=(AMD64, ARM64))

    assert amd.soci_index is not None
    assert arm.soci_index is not None
    assert [item.digest for item in index.manifests] == [
        amd.manifest.digest,
        arm.manifest.digest,
        amd.attestations[0].digest,
        arm.attestations[0].digest,
        amd.soci_index.digest,
        arm.soci_index.digest,
    ]
    assert index.media_type == OCI_INDEX
    assert index.annotations == {"a": "b"}
    assert index.manifests[4].artifact_type == SOCI_INDEX_V2
    assert index.manifests[0].annotations == {SOCI_INDEX_DIGEST: str(amd.soci_index.digest)}
    assert parse_image_index(index.encode()) == index


@pytest.fixture(scope="module")
def four_branches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, list[PlatformImage]]:
    """Branches of four platforms, two of them with attestations; the first has those of both, all annotated alike."""
    layout = Layout.create(tmp_path_factory.mktemp("permutations"))
    images = [
        branch_v2(layout, AMD64, attested=True),
        branch_v2(layout, ARM64_V8),
        branch_v2(layout, ARM_V7, attested=True),
        branch_plain(layout, S390X),
    ]
    several = images[0].attestations + images[2].attestations
    doubled = tuple(item.annotated(annotations=images[0].attestations[0].annotations) for item in several)
    images[0] = images[0].model_copy(update={"attestations": doubled})
    return layout, images


@given(order=st.permutations(range(4)), seed=st.integers(0, 5))
def test_any_order_of_the_branches_gives_the_same_bytes(
    four_branches: tuple[Layout, list[PlatformImage]], order: list[int], seed: int
) -> None:
    layout, images = four_branches
    shuffled = list(images[0].attestations)
    Random(seed).shuffle(shuffled)
    changed = [images[0].model_copy(update={"attestations": tuple(shuffled)}), *images[1:]]

    again = joined(layout, *(changed[position] for position in order))

    assert again.encode() == joined(layout, *images).encode()


def test_one_platform_is_a_valid_join(layout: Layout) -> None:
    index = joined(layout, branch_v2(layout, AMD64), platforms=(AMD64,))

    assert len(index.manifests) == 2


def test_an_image_without_any_ztoc_is_joined_as_it_is(layout: Layout) -> None:
    image = branch_plain(layout, AMD64)

    assert joined(layout, image).manifests == (image.manifest,)


def test_a_v1_soci_index_is_a_referrer_and_not_listed(layout: Layout) -> None:
    image = branch_v1(layout, AMD64)

    assert [item.digest for item in joined(layout, image).manifests] == [image.manifest.digest]


def test_the_platform_comes_from_the_config_where_the_descriptor_has_none(layout: Layout) -> None:
    image = branch_v2(layout, ARM64_V8)
    bare = with_soci(image, platform=None).model_copy(update={"manifest": image.manifest.plain})

    index = joined(layout, bare)

    assert [item.platform for item in index.manifests] == [ARM64_V8, ARM64_V8]
    assert index == joined(layout, image)


def test_arm64_and_arm64_v8_are_one_platform(layout: Layout) -> None:
    image = branch_v2(layout, ARM64_V8).model_copy(update={"platform": ARM64})

    assert joined(layout, image, platforms=(ARM64,)).manifests[0].platform == ARM64_V8
    other = branch_v2(layout, ARM64)
    assert "linux/arm64: 2 images of one platform" in refusal(layout, image, other)


def test_a_config_of_another_platform_is_refused(layout: Layout) -> None:
    image = branch_plain(layout, ARM64).model_copy(update={"platform": AMD64})

    reason = refusal(layout, image, platforms=(AMD64,))

    assert "its config says linux/arm64, but the branch built linux/amd64" in reason


def test_a_descriptor_that_claims_another_platform_is_refused(layout: Layout) -> None:
    image = branch_plain(layout, ARM64)
    lying = image.model_copy(update={"manifest": image.manifest.annotated(platform=AMD64)})

    assert "its descriptor says linux/amd64" in refusal(layout, lying)


def test_platforms_that_are_missing_or_were_not_asked_for_are_named(layout: Layout) -> None:
    reason = refusal(layout, branch_plain(layout, S390X), platforms=(AMD64, ARM64))

    assert "linux/amd64: no image of this platform" in reason
    assert "linux/arm64: no image of this platform" in reason
    assert "linux/s390x: this platform was not requested" in reason


def test_no_image_at_all_is_refused(layout: Layout) -> None:
    assert "there are no images" in refusal(layout)


def test_every_problem_of_every_branch_is_named_at_once(layout: Layout) -> None:
    amd, arm = branch_v2(layout, AMD64, attested=True), branch_v2(layout, ARM64)
    reason = refusal(
        layout,
        with_soci(amd, annotations={IMAGE_MANIFEST_DIGEST: str(OTHER)}),
        arm.model_copy(update={"soci_index": None}),
        branch_plain(layout, S390X).model_copy(update={"manifest": _absent()}),
    )

    assert f"linux/amd64 ({amd.manifest.digest}): the SOCI index" in reason
    assert f"belongs to {OTHER}" in reason
    assert "the branch published none" in reason
    assert f"linux/s390x ({OTHER}): its manifest {OTHER} cannot be read" in reason
    assert reason.count("\n  - ") == 3


def test_an_annotation_that_names_another_soci_index_is_refused(layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    other = soci_index(layout, add_image(layout, AMD64, env=("A=b",)), SOCI_INDEX_V2, subject=True)

    reason = refusal(layout, with_soci(image, digest=other.digest, size=other.size))

    assert f"but the branch published {other.digest}" in reason


def test_a_soci_index_that_the_manifest_does_not_name_is_refused(layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    bare = branch_plain(layout, AMD64).model_copy(update={"soci_index": image.soci_index})

    assert f"no annotation {SOCI_INDEX_DIGEST}" in refusal(layout, bare)


def test_an_image_manifest_in_the_place_of_a_soci_index_is_refused(layout: Layout) -> None:
    image = branch_v2(layout, AMD64)
    plain = add_image(layout, AMD64)

    assert "is not a v2 SOCI index" in refusal(layout, with_soci(image, digest=plain.digest, size=plain.size))


def test_a_ztoc_for_a_layer_of_another_image_is_refused(layout: Layout) -> None:
    image, other = branch_v2(layout, AMD64), branch_v2(layout, ARM64)
    assert other.soci_index is not None
    manifest = parse_image_manifest(layout.read(image.manifest))
    mixed = manifest.replaced(annotations={SOCI_INDEX_DIGEST: str(other.soci_index.digest)})
    stored = layout.add_document(mixed)
    crossed = PlatformImage(
        platform=AMD64,
        manifest=stored,
        soci_index=other.soci_index.annotated(platform=AMD64, annotations={IMAGE_MANIFEST_DIGEST: str(stored.digest)}),
    )

    assert "which is not a layer of the image" in refusal(layout, crossed)


def test_a_v1_soci_index_of_another_image_is_refused(layout: Layout) -> None:
    amd, arm = branch_v1(layout, AMD64), branch_v1(layout, ARM64)

    assert "which is a different image" in refusal(layout, amd.model_copy(update={"soci_index": arm.soci_index}))


def test_an_attestation_that_did_not_follow_its_image_is_refused(layout: Layout) -> None:
    image = branch_v2(layout, AMD64, attested=True)
    stale = image.attestations[0].annotated(
        annotations=image.attestations[0].annotations | {REFERENCE_DIGEST: str(OTHER)}
    )

    assert f"is about {OTHER}" in refusal(layout, image.model_copy(update={"attestations": (stale,)}))


def test_a_manifest_of_another_size_than_its_descriptor_says_is_refused(layout: Layout) -> None:
    image = branch_plain(layout, AMD64)
    wrong = image.model_copy(update={"manifest": image.manifest.annotated(size=image.manifest.size + 1)})

    with pytest.raises(JoinRefused, match="cannot be read"):
        join([wrong], annotations={}, read=lambda _: layout.read(image.manifest))


@pytest.mark.parametrize("data", [b"{}", None], ids=["other bytes", "other bytes of the same length"])
def test_what_is_read_must_have_the_digest_and_the_size_of_its_descriptor(layout: Layout, data: bytes | None) -> None:
    image = branch_plain(layout, AMD64)
    served = data or layout.read(image.manifest).replace(b"sha256", b"sha257")

    with pytest.raises(JoinRefused, match="should have") as caught:
        join([image], annotations={}, read=lambda _: served)
    assert f"its manifest {image.manifest.digest} cannot be read" in caught.value.reason


def test_a_size_that_is_not_that_of_the_manifest_is_named(layout: Layout) -> None:
    image = branch_plain(layout, AMD64)
    size = image.manifest.size
    wrong = image.model_copy(update={"manifest": image.manifest.annotated(size=size + 1)})

    def read(descriptor: Descriptor) -> bytes:
        return layout.read(descriptor if descriptor.digest != image.manifest.digest else image.manifest)

    with pytest.raises(JoinRefused, match=f"should have {size + 1} bytes; the registry returned {size} "):
        join([wrong], annotations={}, read=read)


@pytest.mark.parametrize("named", [f"sha256:{'0' * 64}", f"sha256:{'f' * 64}"])
def test_a_manifest_must_name_the_soci_index_that_was_published(layout: Layout, named: str) -> None:
    image = branch_v2(layout, AMD64)
    stored = layout.add_document(
        parse_image_manifest(layout.read(image.manifest)).replaced(annotations={SOCI_INDEX_DIGEST: named})
    )
    tied = with_soci(image, annotations={IMAGE_MANIFEST_DIGEST: str(stored.digest)})

    reason = refusal(layout, tied.model_copy(update={"manifest": stored}))

    assert f"its manifest names the SOCI index {named}, but the branch published" in reason
    assert reason.count("\n  - ") == 1


def test_an_attestation_with_a_subject_is_of_its_own_image(layout: Layout) -> None:
    image = branch_v2(layout, AMD64, attested=True)

    def attested(subject: Descriptor) -> PlatformImage:
        manifest = parse_image_manifest(layout.read(image.attestations[0])).replaced(subject=subject.plain)
        stored = layout.add_document(manifest).annotated(annotations=image.attestations[0].annotations)
        return image.model_copy(update={"attestations": (stored,)})

    assert len(joined(layout, attested(image.manifest)).manifests) == 3
    other = add_image(layout, ARM64)
    assert f"has the subject {other.digest}" in refusal(layout, attested(other))


def of_version(layout: Layout, os: str, version: str) -> PlatformImage:
    """An image whose config names the version of its operating system."""
    manifest = parse_image_manifest(layout.read(add_image(layout, Platform(os, "amd64"))))
    config = json.loads(layout.read(manifest.config)) | {"os.version": version}
    stored = layout.add_bytes(json.dumps(config).encode(), OCI_CONFIG)
    return PlatformImage(
        platform=Platform(os, "amd64", os_version=version),
        manifest=layout.add_document(manifest.replaced(config=stored)),
    )


def test_only_windows_has_one_image_of_each_version_in_an_index(layout: Layout) -> None:
    versions = ("10.0.17763.1", "10.0.20348.1")

    index = joined(layout, *(of_version(layout, "windows", version) for version in versions))

    assert sorted(item.platform.os_version for item in index.manifests if item.platform) == list(versions)
    reason = refusal(layout, *(of_version(layout, "linux", version) for version in versions))
    assert "linux/amd64: 2 images of one platform" in reason


def test_a_temporary_failure_to_read_is_handed_on_so_that_it_can_be_retried(layout: Layout) -> None:
    def read(_: Descriptor) -> bytes:
        raise SociPipelineError("the registry is busy", temporary=True)

    with pytest.raises(SociPipelineError, match="busy") as caught:
        join([branch_plain(layout, AMD64)], annotations={}, read=read)
    assert not isinstance(caught.value, JoinRefused)


def test_annotations_depend_on_the_commit_alone_and_hold_no_password() -> None:
    committed = datetime(2026, 11, 24, 9, 30, 1, 999, tzinfo=timezone(timedelta(hours=2)))

    assert commit_annotations(
        revision="ab" * 20, source="https://user:secret@git.example.com/app.git", committed=committed
    ) == {
        "org.opencontainers.image.created": "2026-11-24T07:30:01Z",
        "org.opencontainers.image.revision": "ab" * 20,
        "org.opencontainers.image.source": "https://git.example.com/app.git",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ssh://git:secret@host/app", "ssh://git@host/app"),
        ("git@host:team/app.git", "git@host:team/app.git"),
        ("/srv/app", "/srv/app"),
        ("https://token@host:8443/app", "https://host:8443/app"),
    ],
)
def test_credentials_are_left_out_of_a_source(url: str, shown: str) -> None:
    annotations = commit_annotations(revision="0" * 40, source=url, committed=datetime(2026, 1, 1, tzinfo=UTC))

    assert annotations["org.opencontainers.image.source"] == shown


def test_a_config_without_a_platform_is_refused(layout: Layout) -> None:
    image = branch_plain(layout, AMD64)

    def read(descriptor: Descriptor) -> bytes:
        if descriptor.digest == image.manifest.digest:
            return layout.read(descriptor)
        raise InvalidInput("no such thing")

    with pytest.raises(JoinRefused, match=r"its config .* cannot be read"):
        join([image], annotations={}, read=read)


def _absent() -> Descriptor:
    return Descriptor(media_type="application/vnd.oci.image.manifest.v1+json", digest=OTHER, size=10)
