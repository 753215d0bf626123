"""The gate over a registry: sound images pass, and what says nothing about the image is an error."""

from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput, VerificationFailed
from soci_pipeline.images.findings import Finding
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import OCI_LAYER_ZSTD
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown, RegistryUnreachable
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.soci.index.records import IndexVersion
from soci_pipeline.verification.verify import VerificationReport, verify
from tests.support.images import AMD64, ARM64, Layer, gzip_layer
from tests.support.indexed import indexed, some_layers
from tests.support.published import REPOSITORY, flip
from tests.support.registries import AT_ONCE, registry
from tests.support.tars import directory, gzipped, hardlink, symlink, tar
from tests.support.verified import faults, layers_of, published, verified

MODES = ("sample", "all")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", list(IndexVersion))
def test_a_sound_image_passes(client: RegistryClient, layout: Layout, mode: str, version: IndexVersion) -> None:
    image = indexed(layout, AMD64, version=version)
    digest = published(client, layout, image, indexed(layout, ARM64, [gzip_layer({"a": b"b"})]))

    report = verify(client, REPOSITORY, digest, mode=mode, platforms=[AMD64, ARM64])

    assert report.findings == ()
    assert report.ok
    assert report.index == digest
    assert report.checked["ztocs"] == 3
    assert report.checked["spans"] >= 5
    assert report.checked["entries"] >= (55 if mode == "all" else 20)
    assert 0 < report.lazy_bytes < report.total_bytes
    assert [str(each.platform) for each in report.platforms] == ["linux/amd64", "linux/arm64"]
    if mode == "all":
        assert report.checked["bytes"] == sum(
            each.size for each in (*layers_of(layout, image), *layers_of_second(layout))
        )
        assert report.checked["diff_ids"] == 3
    else:
        assert report.checked["bytes"] < layers_of(layout, image)[0].size + layers_of(layout, image)[1].size


def layers_of_second(layout: Layout) -> tuple[Descriptor, ...]:
    return layers_of(layout, indexed(layout, ARM64, [gzip_layer({"a": b"b"})]))


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_entry_passes(client: RegistryClient, layout: Layout, mode: str) -> None:
    entries = [directory("d/"), symlink("d/s", "../x"), hardlink("h", "d/s"), directory("l" * 150 + "/" + "n" * 120)]
    layer = Layer(gzipped(tar(entries)))

    assert faults(client, published(client, layout, indexed(layout, AMD64, [layer])), mode) == ""


@pytest.mark.parametrize("mode", MODES)
def test_layers_without_a_ztoc_pass_too(client: RegistryClient, layout: Layout, mode: str) -> None:
    zstd = Layer(b"\x28\xb5\x2f\xfd and so on", OCI_LAYER_ZSTD)
    image = indexed(layout, AMD64, [*some_layers(), gzip_layer({"small": b"1"}), zstd], indexed_layers=[0])

    report = verified(client, published(client, layout, image), mode)

    assert report.findings == ()
    assert report.checked.get("diff_ids_unread", 0) == (1 if mode == "all" else 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_flipped_bit_in_a_manifest_is_found(client: RegistryClient, layout: Layout, kept: Layout, mode: str) -> None:
    image = indexed(layout, AMD64)
    digest = published(client, layout, image)
    assert image.soci_index is not None

    for each in (image.soci_index.digest, image.manifest.digest, digest):
        flip(kept.blob_path(each), 60)
        assert str(each) in faults(client, digest, mode)
        flip(kept.blob_path(each), 60)
    assert faults(client, digest, mode) == ""


def test_a_reference_that_is_not_there_or_no_image_is_an_error(client: RegistryClient, layout: Layout) -> None:
    image = indexed(layout, AMD64)
    published(client, layout, image)
    assert image.soci_index is not None

    with pytest.raises(ManifestUnknown):
        verify(client, REPOSITORY, "nothing", mode="sample")
    with pytest.raises(InvalidInput, match="is an artifact"):
        verify(client, REPOSITORY, image.soci_index.digest, mode="sample")
    with pytest.raises(InvalidInput, match="must be at least 1, not 0"):
        verify(client, REPOSITORY, image.manifest.digest, mode="sample", jobs=0)


@pytest.mark.parametrize("mode", ["off", "some"])
def test_a_mode_that_reads_nothing_is_refused(client: RegistryClient, layout: Layout, mode: str) -> None:
    digest = published(client, layout, indexed(layout, AMD64))
    with pytest.raises(InvalidInput, match=mode):
        verify(client, REPOSITORY, digest, mode=mode)


def test_a_report_fails_with_every_finding_or_not_at_all() -> None:
    findings = (Finding(where="linux/amd64", what="no zTOC"), Finding(where="linux/arm64", what="no config"))
    with pytest.raises(VerificationFailed) as caught:
        VerificationReport(ok=False, findings=findings).raise_for_findings("shop/web at v1")
    assert caught.value.reason == ("linux/amd64: no zTOC\nlinux/arm64: no config\nshop/web at v1 failed verification.")
    VerificationReport(ok=True).raise_for_findings("shop/web at v1")


def test_a_registry_out_of_reach_says_nothing_about_the_image(tmp_path: Path, layout: Layout) -> None:
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        digest = published(client, layout, indexed(layout, AMD64))
    impatient = ClientSettings(attempts=2, backoff_base=0.01)
    with RegistryClient(client.registry, settings=impatient) as late, pytest.raises(RegistryUnreachable):
        verify(late, REPOSITORY, digest, mode="sample")


def test_what_was_checked_is_said_in_words() -> None:
    checked = {
        "bytes": 1536,
        "configs": 1,
        "diff_ids_unread": 2,
        "entries": 1,
        "layers": 2,
        "soci_indexes": 1,
        "ztocs": 2,
    }
    said = VerificationReport(ok=True, checked=checked).checked_summary()
    assert said == (
        "1 config, 2 diff ids that cannot be read, 1 entry, 2 layers, 1 SOCI index, 2 zTOCs, 1.5 KiB of layers"
    )
    assert VerificationReport(ok=False).checked_summary() == "nothing"


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_that_is_counted_has_words(client: RegistryClient, layout: Layout, mode: str) -> None:
    zstd = Layer(b"\x28\xb5\x2f\xfd and so on", OCI_LAYER_ZSTD)
    report = verified(
        client, published(client, layout, indexed(layout, AMD64, [*some_layers(), zstd], indexed_layers=[0])), mode
    )
    assert "_" not in report.checked_summary()
