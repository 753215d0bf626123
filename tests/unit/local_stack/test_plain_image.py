"""Images put together from files are the same for the same files, and sound."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from local_stack.plain_image import add_image, add_layer, file_member, link_member
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.platform import Platform

ARM = Platform("linux", "arm64")


def test_the_order_of_the_members_does_not_change_the_layer(tmp_path: Path) -> None:
    members = [file_member("b", b"2"), file_member("a", b"1"), link_member("c", "a")]
    first = add_layer(Layout.create(tmp_path / "1"), members, created_by="test")
    second = add_layer(Layout.create(tmp_path / "2"), reversed(members), created_by="test")
    assert first == second


def test_the_diff_id_is_the_digest_of_the_tar_in_the_layer(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    layer = add_layer(layout, [file_member("etc/x", b"content", mode=0o600)], created_by="test")
    data = gzip.decompress(layout.read(layer.descriptor))
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer.diff_id
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [(member.name, member.mode) for member in archive] == [("etc/x", 0o600)]


def test_a_hard_link_follows_its_file(tmp_path: Path) -> None:
    link = tarfile.TarInfo("a-link")
    link.type, link.linkname = tarfile.LNKTYPE, "target"
    layout = Layout.create(tmp_path)
    layer = add_layer(layout, [(link, b""), file_member("target", b"x")], created_by="test")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layout.read(layer.descriptor)))) as archive:
        assert archive.getnames() == ["target", "a-link"]


def test_the_image_names_its_platform_in_descriptor_and_config(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    layer = add_layer(layout, [file_member("x", b"x")], created_by="test")
    image = add_image(layout, [layer], ARM, created=0, config={"Cmd": ["x"]})
    assert image.platform == ARM
    manifest = layout.read_document(image)
    assert isinstance(manifest, ImageManifest)
    config = json.loads(layout.read(manifest.config))
    assert (config["architecture"], config["os"], config["created"]) == ("arm64", "linux", "1970-01-01T00:00:00Z")
    assert config["rootfs"]["diff_ids"] == [layer.diff_id]
