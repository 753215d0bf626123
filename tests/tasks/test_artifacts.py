"""What people read in the UI: digests, how to pull, what is indexed and why not, what lazy loading saves."""

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP, OCI_MANIFEST
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.verification.verify import VerificationReport
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.records import LayerRecord, PlatformImage
from tasks.artifacts import key_of, size, summary
from tests.support.images import AMD64

IMAGE = ImageReference.parse("registry.example.com/Team-x/app".lower())


def _descriptor(letter: str) -> Descriptor:
    return Descriptor(media_type=OCI_MANIFEST, digest=Digest(f"sha256:{letter * 64}"), size=1)


def _published() -> PublishedImage:
    layers = (
        LayerRecord(
            digest=_descriptor("a").digest, size=20 << 20, media_type=OCI_LAYER_GZIP, ztoc=_descriptor("b").digest
        ),
        LayerRecord(digest=_descriptor("c").digest, size=2048, media_type=OCI_LAYER_GZIP, reason=Reason.TOO_SMALL),
    )
    branch = PlatformImage(
        platform=AMD64, manifest=_descriptor("d"), soci_index=_descriptor("e"), layers=layers, bytes_uploaded=3 << 20
    )
    index = _descriptor("f").digest
    return PublishedImage(
        reference=str(IMAGE.with_digest(index)), index=index, platforms=(branch,), tags=("1.0",), verified=True
    )


def test_the_summary_says_how_to_pull_what_is_indexed_and_what_that_saves() -> None:
    report = VerificationReport(ok=True, lazy_bytes=1 << 20, total_bytes=20 << 20)
    text = summary(IMAGE, _published(), report, seconds=12.34)
    assert "docker pull registry.example.com/team-x/app:1.0" in text
    assert f"`sha256:{'f' * 64}`" in text
    assert "1 of 2" in text
    assert "3.0 MiB" in text
    assert f"`sha256:{'c' * 64}`, 2.0 KiB: too-small" in text
    assert "1.0 MiB of 20.0 MiB (5.0 %)" in text
    assert "12.3 s" in text


def test_a_publication_without_verification_says_so() -> None:
    published = _published().model_copy(update={"verified": False})
    assert "Verified: no" in summary(IMAGE, published, None, seconds=1)


def test_keys_have_only_what_prefect_takes_and_tell_images_apart() -> None:
    assert key_of("branch", IMAGE, "linux-arm64") == "branch-team-x-app-linux-arm64"
    assert key_of("image", ImageReference.parse("h.io/a__b.c")) == "image-a-b-c"


def test_sizes_are_for_people() -> None:
    assert (size(512), size(3 << 20)) == ("0.5 KiB", "3.0 MiB")
