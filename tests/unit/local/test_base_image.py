"""A base image from Debian packages: a merged /usr, a shell, and nothing that only people read."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from soci_pipeline.errors import DamagedContent
from soci_pipeline.local.base_image import image_of_packages, package_members
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.platform import Platform
from tests.support.debs import write_deb

AMD = Platform("linux", "amd64")


def _files(folder: Path, packages: list[Path]) -> dict[str, tarfile.TarInfo]:
    layout = Layout.create(folder)
    manifest = layout.read_document(image_of_packages(layout, packages, AMD))
    assert isinstance(manifest, ImageManifest)
    data = gzip.decompress(layout.read(manifest.layers[0], limit=1 << 30))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def test_files_of_the_old_top_folders_move_below_usr_and_the_names_stay_as_links(tmp_path: Path) -> None:
    deb = write_deb(tmp_path / "a.deb", {"bin/dash": b"dash", "usr/bin/env": b"env", "lib/libc.so": b"c"})
    found = _files(tmp_path / "layout", [deb])
    assert found["usr/bin/dash"].isreg()
    assert found["usr/lib/libc.so"].isreg()
    assert (found["bin"].linkname, found["lib"].linkname) == ("usr/bin", "usr/lib")
    assert "sbin" not in found


def test_the_shell_that_no_package_configured_is_linked(tmp_path: Path) -> None:
    deb = write_deb(tmp_path / "a.deb", {"bin/dash": b"dash"})
    assert _files(tmp_path / "layout", [deb])["usr/bin/sh"].linkname == "dash"


def test_a_shell_that_a_package_brings_is_kept(tmp_path: Path) -> None:
    deb = write_deb(tmp_path / "a.deb", {"bin/sh": "bash", "bin/bash": b"bash"})
    assert _files(tmp_path / "layout", [deb])["usr/bin/sh"].linkname == "bash"


def test_manuals_are_left_out_and_licences_are_kept(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "usr/share/doc/a/copyright": b"x",
        "usr/share/doc/a/changelog.gz": b"x",
        "usr/share/man/man1/a.1": b"x",
        "usr/bin/a": b"x",
    }
    found = _files(tmp_path / "layout", [write_deb(tmp_path / "a.deb", files)])
    assert "usr/share/doc/a/copyright" in found
    assert not [name for name in found if "man" in name or "changelog" in name]


def test_the_same_packages_give_the_same_image(tmp_path: Path) -> None:
    packages = [write_deb(tmp_path / f"{name}.deb", {f"usr/bin/{name}": name.encode()}) for name in "ab"]
    first = image_of_packages(Layout.create(tmp_path / "1"), packages, AMD)
    assert first == image_of_packages(Layout.create(tmp_path / "2"), reversed(packages), AMD)


def test_a_file_that_is_no_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.deb").write_bytes(b"<html>not found</html>")
    with pytest.raises(DamagedContent, match=r"odd\.deb is no Debian package"):
        list(package_members(tmp_path / "odd.deb"))


def test_a_package_that_was_cut_short_is_named(tmp_path: Path) -> None:
    whole = write_deb(tmp_path / "cut.deb", {"usr/bin/a": b"a"}).read_bytes()
    (tmp_path / "cut.deb").write_bytes(whole[:100])
    with pytest.raises(DamagedContent, match=r"cut\.deb has no data"):
        list(package_members(tmp_path / "cut.deb"))
