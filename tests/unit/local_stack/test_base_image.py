"""A base image from Debian packages: a merged /usr, a shell, and nothing that only people read."""

import gzip
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from local_stack.base_image import PACKAGES, debian_base_image, image_of_packages, package_members
from local_stack.debian_packages import OS_RELEASE, Release
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.platform import Platform
from tests.support.debs import Linked, write_deb
from tests.support.programs import write_program

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
    with pytest.raises(DamagedContent, match=r"odd\.deb is not a Debian package"):
        list(package_members(tmp_path / "odd.deb"))


def test_a_package_that_was_cut_short_is_named(tmp_path: Path) -> None:
    whole = write_deb(tmp_path / "cut.deb", {"usr/bin/a": b"a"}).read_bytes()
    (tmp_path / "cut.deb").write_bytes(whole[:100])
    with pytest.raises(DamagedContent, match=r"cut\.deb has no data"):
        list(package_members(tmp_path / "cut.deb"))


# The archive of this machine's release: it "fetches" the packages that lie in a folder, and notes what was asked for.
APT_GET = """
for word; do
  case "$word" in Dir::Cache::archives=*) cache=${word#*=} ;; APT::Architecture=*) arch=${word#*=} ;; esac
done
case "$*" in
  *indextargets*) echo "$CODENAME main https://mirror.example/debian/" ;;
  *" install "*) echo "$arch: $@" >> "$ASKED"; cp "$DEBS/$arch"/*.deb "$cache/" ;;
esac
"""


@pytest.mark.skipif(
    not OS_RELEASE.exists() or "ID=debian" not in OS_RELEASE.read_text().splitlines() or not shutil.which("dpkg-deb"),
    reason="base images are made on Debian only",
)
def test_the_base_image_has_every_platform_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for architecture in ("amd64", "arm64"):
        (tmp_path / "debs" / architecture).mkdir(parents=True)
        content = {"usr/bin/python3": architecture.encode(), "bin/dash": b"dash"}
        write_deb(tmp_path / "debs" / architecture / "python3.deb", content)
    write_program(tmp_path / "programs", "apt-get", APT_GET)
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}:/usr/bin:/bin")
    for name, value in {"DEBS": tmp_path / "debs", "ASKED": tmp_path / "asked"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("CODENAME", Release.of_this_machine().codename)
    platforms = (AMD, Platform("linux", "arm64"))
    first, second = (debian_base_image(Toolchain(tmp_path / "toolchain"), platforms) for _ in range(2))
    assert first.root() == second.root()
    index = first.read_document(first.root())
    assert isinstance(index, ImageIndex)
    assert [entry.platform for entry in index.manifests] == list(platforms)
    assert len({entry.digest for entry in index.manifests}) == 2
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.partition(":")[0] for line in asked] == ["amd64", "arm64"]
    assert all(f"{package}/" in line for line in asked for package in PACKAGES)


def test_a_hard_link_follows_its_target_into_usr(tmp_path: Path) -> None:
    deb = write_deb(tmp_path / "a.deb", {"bin/bash": b"bash", "bin/rbash": Linked("./bin/bash")})
    found = _files(tmp_path / "layout", [deb])
    assert (found["usr/bin/rbash"].islnk(), found["usr/bin/rbash"].linkname) == (True, "usr/bin/bash")
