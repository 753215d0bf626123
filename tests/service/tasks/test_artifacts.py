"""What people read in the UI: digests, how to pull, what is indexed and why not, what lazy loading saves."""

from dataclasses import replace

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP, OCI_MANIFEST
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.index.records import LayerRecord, PlatformImage
from soci_pipeline.soci.reasons import WHY, Reason
from soci_pipeline.verification.lazy_bytes import PlatformCost
from soci_pipeline.verification.verify import VerificationReport
from tasks.artifacts import key_of
from tasks.reports import verification
from tasks.summary import Shown, branch_page, summary
from tests.support.images import AMD64, ARM64

IMAGE = ImageReference.parse("registry.example.com/team-x/app")
ECR = ImageReference.parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team-x/app")
COMMIT = "c" * 40
SOURCE = ResolvedSource(
    url="https://git.example.com/app.git", ref="refs/heads/main", commit=COMMIT, commit_time=1_700_000_000
)
REPORT = VerificationReport(
    ok=True,
    checked={"soci_indexes": 2},
    lazy_bytes=1 << 20,
    total_bytes=20 << 20,
    platforms=(PlatformCost(platform=AMD64, lazy_bytes=1 << 20, total_bytes=20 << 20),),
)
INDEXED = LayerRecord(
    digest=Digest(f"sha256:{'a' * 64}"),
    size=20 << 20,
    media_type=OCI_LAYER_GZIP,
    ztoc=Digest(f"sha256:{'b' * 64}"),
)
SMALL = LayerRecord(digest=Digest(f"sha256:{'c' * 64}"), size=2048, media_type=OCI_LAYER_GZIP, reason=Reason.TOO_SMALL)


def _descriptor(letter: str) -> Descriptor:
    return Descriptor(media_type=OCI_MANIFEST, digest=Digest(f"sha256:{letter * 64}"), size=1)


LAZY = PlatformImage(
    platform=AMD64,
    manifest=_descriptor("d"),
    soci_index=_descriptor("e"),
    layers=(INDEXED, SMALL),
    bytes_uploaded=3 << 20,
)
WHOLE = PlatformImage(platform=ARM64, manifest=_descriptor("1"), layers=(SMALL,))


def shown(*branches: PlatformImage, image: ImageReference = IMAGE) -> Shown:
    index = _descriptor("f").digest
    published = PublishedImage(
        reference=str(image.with_digest(index)), index=index, platforms=branches, tags=("1.0", "latest"), verified=True
    )
    return Shown(image, published, REPORT, SOURCE, seconds=12.34)


def test_the_summary_says_how_to_pull_what_is_indexed_and_what_that_saves() -> None:
    said = summary(shown(LAZY))
    assert "\ndocker pull registry.example.com/team-x/app:1.0\n" in said
    assert "ready for lazy loading** on linux/amd64" in said
    assert f"`sha256:{'f' * 64}`" in said
    assert "`1.0` `latest`" in said
    assert f"`{COMMIT}` (refs/heads/main)" in said
    assert "1 of 2" in said
    assert "3.0 MiB" in said
    assert "| linux/amd64 | 1.0 MiB | 20.0 MiB | 95.0 % |" in said
    assert "12.3 s" in said
    assert "| Verified | yes: 2 SOCI indexes |" in said


def test_a_verification_says_in_words_what_was_checked() -> None:
    said = verification(IMAGE, "1.0", REPORT.model_copy(update={"checked": {"bytes": 2048, "layers": 1, "ztocs": 3}}))
    assert "| Checked | 1 layer, 3 zTOCs, 2.0 KiB of layers |" in said


def test_each_layer_that_is_pulled_whole_has_its_reason_in_words() -> None:
    said = summary(shown(LAZY))
    assert f"\n\ntoo-small: {WHY[Reason.TOO_SMALL]}\n\n" in said
    assert f"| linux/amd64 | 2.0 KiB | `sha256:{'c' * 64}` |" in said
    assert set(WHY) == set(Reason)


def test_the_page_of_a_branch_has_every_layer_with_its_ztoc_or_its_reason() -> None:
    said = branch_page(IMAGE, LAZY.model_copy(update={"timings": {"build": 1.26, "push": 0.5}}))
    assert "## linux/amd64 of team-x/app\n" in said
    assert f"| 20.0 MiB | layer | `sha256:{'a' * 64}` |\n|  | zTOC | `sha256:{'b' * 64}` |" in said
    assert f"\n\ntoo-small: {WHY[Reason.TOO_SMALL]}\n\n" in said
    assert f"| linux/amd64 | 2.0 KiB | `sha256:{'c' * 64}` |" in said
    assert "build 1.3 s, push 0.5 s" in said
    assert "3.0 MiB; 0 B already there" in said


def test_the_page_of_a_branch_without_an_index_says_none() -> None:
    said = branch_page(IMAGE, WHOLE)
    assert "| SOCI&nbsp;index | none |" in said
    assert "with a zTOC" not in said


def test_an_image_without_any_index_says_so_first() -> None:
    assert "**Published without a SOCI index**" in summary(shown(WHOLE))
    said = summary(shown(LAZY, WHOLE))
    assert "lazy loading on linux/amd64; linux/arm64 has no layer that qualified" in said


def test_where_nothing_is_saved_nothing_is_said_of_it() -> None:
    nothing = REPORT.model_copy(update={"lazy_bytes": REPORT.total_bytes})
    assert "saves" in summary(shown(LAZY))
    assert "saves" not in summary(replace(shown(WHOLE), report=nothing))


def test_a_publication_without_verification_says_so() -> None:
    full = shown(LAZY)
    unverified = replace(full, report=None, published=full.published.model_copy(update={"verified": False}))
    said = summary(unverified)
    assert "| Verified | no, not requested |" in said
    assert "saves" not in said


def test_without_a_tag_the_digest_is_pulled() -> None:
    full = shown(LAZY)
    untagged = replace(full, published=full.published.model_copy(update={"tags": ()}))
    assert f"docker pull registry.example.com/team-x/app@sha256:{'f' * 64}" in summary(untagged)


def test_digests_are_links_where_the_registry_has_a_page_for_them() -> None:
    said = summary(shown(LAZY, image=ECR))
    for letter in "def":
        assert f"[`sha256:{letter * 64}`](<https://eu-west-1.console.aws.amazon.com/ecr/" in said
    assert "](<" not in summary(shown(LAZY))


def test_a_hostile_branch_name_breaks_no_table() -> None:
    source = SOURCE.model_copy(update={"ref": "refs/heads/a|b`<img src=x onerror=alert(1)>"})
    said = summary(replace(shown(LAZY), source=source))
    (line,) = [line for line in said.splitlines() if line.startswith("| Commit")]
    assert line.count("|") == 3
    assert "<img" not in said


def test_keys_have_only_what_prefect_takes() -> None:
    key = key_of("layers", IMAGE, "linux-arm64")
    assert key.startswith("layers-team-x-app-linux-arm64-")
    assert all(character.isalnum() or character == "-" for character in key)
    assert key == key_of("layers", IMAGE, "linux-arm64")


def test_no_two_images_share_a_history() -> None:
    names = ["h.io/a/b", "h.io/a-b", "h.io/a__b", "other.io/a/b"]
    assert len({key_of("image", ImageReference.parse(name)) for name in names}) == len(names)
