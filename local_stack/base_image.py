"""Build a base image with Python for each platform from Debian packages, without running any of their code.

Needs neither root nor emulation nor an engine: the files of the packages become one layer, with the owners and modes
from the packages. The same packages give the same digest.
"""

import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from local_stack.debian_packages import PackageArchive, Release, debian_architecture
from local_stack.folder_lock import folder_lock
from local_stack.plain_image import Member, add_image, add_layer, file_member, link_member
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import DamagedContent, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.platform import Platform

PACKAGES = ("base-files", "coreutils", "dash", "python3")
"""The content of the base image: a shell for RUN steps, and Python for the service."""

_RECIPE = "2"
# Debian 12 packages still use these at the top level; the image has a merged /usr.
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_LEFT_OUT = re.compile(r"usr/share/(man|info|locale|lintian|bug|doc/(?!.*/copyright$).*/.*)(/|$)")
_ADDED_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def debian_base_image(toolchain: Toolchain, platforms: Sequence[Platform]) -> Layout:
    """Return the layout of the base image, built once in a toolchain folder; its root is an index of all platforms.

    Raises `ToolMissing` on systems other than Debian, whose mirrors do not serve packages of foreign architectures.
    """
    release = Release.of_this_machine()
    if release.distribution != "debian":
        raise ToolMissing("base images can only be built on Debian, from its packages")
    key = hashlib.sha256(repr((_RECIPE, release, PACKAGES, [str(item) for item in platforms])).encode()).hexdigest()
    place = toolchain.folder / "images" / f"python-{release.codename}-{key[:12]}"
    with folder_lock(place.parent):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as scratch:
                _make(Path(scratch) / "layout", toolchain, release, platforms)
                (Path(scratch) / "layout").rename(place)
    return Layout.open(place)


def _make(folder: Path, toolchain: Toolchain, release: Release, platforms: Sequence[Platform]) -> None:
    layout = Layout.create(folder)
    images = []
    for platform in platforms:
        logger().info("building the base image for %s from Debian packages", platform)
        archive = PackageArchive(toolchain.folder / "apt", architecture=debian_architecture(platform), release=release)
        images.append(image_of_packages(layout, archive.closure(PACKAGES), platform))
    layout.set_roots([layout.add_document(ImageIndex(manifests=tuple(images)))])


def image_of_packages(layout: Layout, packages: Iterable[Path], platform: Platform) -> Descriptor:
    """Put the files of some packages into an image of one layer; return its descriptor with the platform."""
    tree = _Tree()
    for package in packages:
        tree.add_package(package)
    tree.finish()
    layer = add_layer(layout, tree.members.values(), created_by="soci-pipeline: files of Debian packages")
    return add_image(layout, [layer], platform, created=tree.newest, config={"Env": [_PATH], "Cmd": ["python3"]})


@dataclass
class _Tree:
    """Files of an image by path: later packages replace the files of earlier ones."""

    members: dict[str, Member] = field(default_factory=dict)
    newest: int = 0

    def add_package(self, package: Path) -> None:
        for member, data in package_members(package):
            self.newest = max(self.newest, int(member.mtime))
            if member.name and not _LEFT_OUT.match(member.name) and member.name not in _MERGED:
                self.members[member.name] = (member, data)

    def finish(self) -> None:
        """Add what the packages' own scripts would create, as far as an image needs it."""
        for name in _MERGED:
            if any(path.startswith(f"usr/{name}/") for path in self.members):
                self.members[name] = link_member(name, f"usr/{name}", moment=self.newest)
        if "usr/bin/sh" not in self.members:
            self.members["usr/bin/sh"] = link_member("usr/bin/sh", "dash", moment=self.newest)
        for name, text in _ADDED_FILES.items():
            self.members[name] = file_member(name, text.encode(), moment=self.newest)


def package_members(package: Path) -> Iterator[Member]:
    """Yield the members of a Debian package with their names in a merged /usr; raise `DamagedContent`."""
    with package.open("rb") as file, tarfile.open(fileobj=_data_of(file, package), mode="r:*") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            member.name = _merged(member.name)
            if member.islnk():
                member.linkname = _merged(member.linkname)
            member.pax_headers = {}
            yield member, content.read() if content else b""


def _data_of(file: BinaryIO, package: Path) -> BinaryIO:
    """Return the member ``data.tar.*`` of a package, which is an ar archive (deb(5))."""
    if file.read(8) != b"!<arch>\n":
        raise DamagedContent(f"{package.name} is not a Debian package")
    while len(header := file.read(60)) == 60:
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(file.read(size))
        file.seek(size + size % 2, io.SEEK_CUR)
    raise DamagedContent(f"{package.name} has no data")


def _merged(name: str) -> str:
    path = PurePosixPath(name.removeprefix("./").lstrip("/"))
    if not path.parts:
        return ""
    if path.parts[0] in _MERGED:
        return str(PurePosixPath("usr", path))
    return str(path)
