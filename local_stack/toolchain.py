"""The tools of the local stack and the real tests: downloaded as packages, unpacked into one folder, put on a PATH.

Nothing is installed on the machine. Each package has a folder below ``packages/`` that is created atomically; ``bin/``
has one link for each program. A second version of a tool has a separate folder next to ``bin``.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local_stack.debian_packages import OS_RELEASE, PackageArchive, Release, Suite
from local_stack.folder_lock import folder_lock
from soci_pipeline.errors import InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run

VARIABLE = "SOCI_PIPELINE_TOOLCHAIN"
"""The environment variable for another toolchain folder."""

_PLUGINS = "usr/libexec/docker/cli-plugins"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool's package, the release from which it is taken, and its programs within the package.

    If the package's name contains a version, ``package`` maps each release to its name; ``*`` in ``files`` is a
    wildcard.
    """

    suite: Suite
    package: str | Mapping[str, str]
    files: tuple[str, ...]


TOOLS: Mapping[str, Tool] = {
    "dockerd": Tool(Suite.NEWER, "docker.io", ("usr/sbin/dockerd",)),
    "docker": Tool(Suite.NEWER, "docker-cli", ("usr/bin/docker",)),
    "buildx": Tool(Suite.NEWER, "docker-buildx", (f"{_PLUGINS}/docker-buildx",)),
    "compose": Tool(Suite.NEWER, "docker-compose", (f"{_PLUGINS}/docker-compose",)),
    "containerd": Tool(
        Suite.NEWER, "containerd", ("usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr")
    ),
    # A newer runc needs a newer C library than the release has.
    "runc": Tool(Suite.OWN, "runc", ("usr/sbin/runc",)),
    "soci": Tool(Suite.NEWER, "soci-snapshotter", ("usr/bin/soci", "usr/bin/soci-snapshotter-grpc")),
    "oras": Tool(Suite.NEWER, "oras", ("usr/bin/oras",)),
    "cosign": Tool(Suite.NEWER, "cosign", ("usr/bin/cosign",)),
    "git-lfs": Tool(Suite.OWN, "git-lfs", ("usr/bin/git-lfs",)),
    "docker-registry": Tool(Suite.OWN, "docker-registry", ("usr/bin/docker-registry",)),
    "qemu-user-static": Tool(
        Suite.OWN, "qemu-user-static", ("usr/bin/qemu-aarch64-static", "usr/bin/qemu-x86_64-static")
    ),
    # Tied to its release's C library and ICU.
    "postgres": Tool(
        Suite.OWN,
        {
            "bookworm": "postgresql-15",
            "trixie": "postgresql-17",
            "jammy": "postgresql-14",
            "noble": "postgresql-16",
        },
        ("usr/lib/postgresql/*/bin/postgres", "usr/lib/postgresql/*/bin/initdb"),
    ),
}

SECOND_RELEASES: Mapping[str, Tool] = {
    "cosign-3": Tool(Suite.UNSTABLE, "cosign", ("usr/bin/cosign",)),
}
"""Other releases of these tools, whose programs have the same names; each has a separate folder next to ``bin``."""

ENGINE = ("dockerd", "docker", "buildx", "containerd", "runc")
"""The parts of a private Docker engine."""

# The package in the machine's own release for each library that a tool is linked against.
_LIBRARIES = {
    "libsystemd.so.0": "libsystemd0",
    "libseccomp.so.2": "libseccomp2",
    "libcap.so.2": "libcap2",
    "libgcrypt.so.20": "libgcrypt20",
    "libgpg-error.so.0": "libgpg-error0",
    "liblzma.so.5": "liblzma5",
    "libzstd.so.1": "libzstd1",
    "liblz4.so.1": "liblz4-1",
    "libpq.so.5": "libpq5",
    "libxml2.so.2": "libxml2",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "libkrb5.so.3": "libkrb5-3",
    "libk5crypto.so.3": "libk5crypto3",
    "libkrb5support.so.0": "libkrb5support0",
    "libkeyutils.so.1": "libkeyutils1",
    "libldap-2.5.so.0": "libldap-2.5-0",
    "liblber-2.5.so.0": "libldap-2.5-0",
    "libldap.so.2": "libldap2",
    "liblber.so.2": "libldap2",
    "libsasl2.so.2": "libsasl2-2",
}
# ICU's packages and libraries both have the version in their names: libicuuc.so.72 is in libicu72.
_ICU = re.compile(r"libicu[a-z0-9]+\.so\.(\d+)")
_NOT_FOUND = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
# Until trixie, Debian's packages have the ``lib`` of a merged /usr at the top level.
_LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "lib/*-linux-gnu")


def default_folder() -> Path:
    """Return ``$SOCI_PIPELINE_TOOLCHAIN``, or ``.toolchain`` in this project's work tree, or a folder in the cache."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).absolute()
    tree = Path(__file__).absolute().parents[1]
    if (tree / "pyproject.toml").exists():
        return tree / ".toolchain"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "soci-pipeline" / "toolchain"


class Toolchain:
    """A folder of unpacked tools; safe for concurrent processes, and fast if all tools are present."""

    def __init__(self, folder: Path | None = None, *, os_release: Path = OS_RELEASE) -> None:
        self._os_release = os_release
        self.folder = (folder or default_folder()).absolute()
        self.bin = self.folder / "bin"

    def ensure(self, names: Iterable[str]) -> dict[str, str]:
        """Fetch missing tools, and return an environment with all tools first on its PATH.

        Tools that the package archive lacks are taken from the PATH. Raises `ToolMissing` with the reason and the
        package, and `ToolFailed` if a download fails.
        """
        missing = [name for name in dict.fromkeys(names) if not self._is_there(name)]
        if missing:
            with folder_lock(self.folder):
                for name in missing:
                    self._fetch(name)
        return self.environment()

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the tools first on its PATH, and their libraries findable."""
        environment = dict(os.environ)
        environment["PATH"] = os.pathsep.join([str(self.bin), environment.get("PATH", os.defpath)])
        libraries = self.folder / "lib"
        if libraries.is_dir():
            searched = [str(libraries), environment.get("LD_LIBRARY_PATH", "")]
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, searched))
        return environment

    def program(self, name: str) -> Path:
        """Return the path of a program (``dockerd``, ``ctr``, …) that `ensure` has fetched or found."""
        found = shutil.which(name, path=self.environment()["PATH"])
        if found is None:
            raise ToolMissing(f"the program {name!r} is neither in {self.bin} nor on the PATH")
        return Path(found)

    def folder_of(self, name: str) -> Path:
        """Return the folder with the links to a tool's programs."""
        return self.folder / f"bin-{name}" if name in SECOND_RELEASES else self.bin

    def docker_configuration(self) -> Path:
        """Return a folder for ``DOCKER_CONFIG`` with the unpacked plugins and no credentials."""
        folder = self.folder / "docker-config"
        plugins = folder / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        _link(plugins / "docker-buildx", self.bin / "docker-buildx")
        if (self.bin / "docker-compose").exists():
            _link(plugins / "docker-compose", self.bin / "docker-compose")
        return folder

    @cached_property
    def _archive(self) -> PackageArchive:
        return PackageArchive(self.folder / "apt", release=Release.of_this_machine(self._os_release))

    @cached_property
    def _unstable_archive(self) -> PackageArchive:
        # With separate lists: they are as long as those of the other suites, and only some tests need them.
        release = Release.of_this_machine(self._os_release)
        return PackageArchive(self.folder / "apt-unstable", release=release, suites=(Suite.UNSTABLE,))

    def _archive_of(self, suite: Suite) -> PackageArchive:
        return self._unstable_archive if suite is Suite.UNSTABLE else self._archive

    def _is_there(self, name: str) -> bool:
        return all((self.folder_of(name) / Path(file).name).exists() for file in _tool(name).files)

    def _fetch(self, name: str) -> None:
        tool = _tool(name)
        if self._is_there(name):
            return
        try:
            unpacked = self._unpacked(self._package(name, tool), tool.suite)
        except ToolMissing as error:
            # On systems other than Debian, an installed tool is good enough.
            if name not in SECOND_RELEASES and all(shutil.which(Path(file).name) for file in tool.files):
                return
            raise ToolMissing(f"{name} is not installed: {error.reason}", advice=error.advice) from error
        links = self.folder_of(name)
        links.mkdir(exist_ok=True)
        for program in _programs(unpacked, tool):
            self._fetch_missing_libraries(program)
            _link(links / program.name, program)

    def _package(self, name: str, tool: Tool) -> str:
        if isinstance(tool.package, str):
            return tool.package
        codename = self._archive.release.codename_of(tool.suite)
        if codename not in tool.package:
            raise ToolMissing(f"the package of {codename} that provides {name} is unknown")
        return tool.package[codename]

    def _unpacked(self, package: str, suite: Suite) -> Path:
        packages = self._archive_of(suite)
        codename = packages.release.codename_of(suite)
        place = self.folder / "packages" / f"{codename}-{package}-{packages.architecture}"
        if place.is_dir():
            return place
        logger().info("fetching %s of %s", package, codename)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".unpacking-") as scratch:
            archive = packages.download(package, suite, Path(scratch))
            run(["dpkg-deb", "-x", archive, Path(scratch) / "tree"], package="dpkg")
            (Path(scratch) / "tree").rename(place)
        return place

    def _fetch_missing_libraries(self, program: Path) -> None:
        """Fetch libraries that the machine lacks from its own release."""
        # Bounded: a fetched library may need another one.
        for _ in _LIBRARIES:
            lacking = _lacking_libraries(program, self.environment())
            if not lacking:
                return
            for library in lacking:
                self._fetch_library(library, program)

    def _fetch_library(self, library: str, program: Path) -> None:
        package = _package_of_library(library)
        if package is None:
            raise ToolMissing(f"{program.name} requires the library {library}, which is not on this machine")
        unpacked = self._unpacked(package, Suite.OWN)
        libraries = self.folder / "lib"
        libraries.mkdir(exist_ok=True)
        for pattern in _LIBRARY_FOLDERS:
            for path in unpacked.glob(f"{pattern}/{library}*"):
                _link(libraries / path.name, path)


def _tool(name: str) -> Tool:
    known = {**TOOLS, **SECOND_RELEASES}
    if name not in known:
        raise InvalidInput(f"no tool named {name!r}", advice=f"Known: {', '.join(known)}.")
    return known[name]


def _programs(unpacked: Path, tool: Tool) -> list[Path]:
    """Return the programs of a tool in its unpacked package; raise `ToolMissing` if the content is unexpected."""
    found = {pattern: sorted(unpacked.glob(pattern)) for pattern in tool.files}
    for pattern, paths in found.items():
        if len(paths) != 1:
            raise ToolMissing(f"the package in {unpacked} has {len(paths)} files {pattern} instead of one")
    return [path for paths in found.values() for path in paths]


def _package_of_library(library: str) -> str | None:
    versioned = _ICU.fullmatch(library)
    return f"libicu{versioned[1]}" if versioned else _LIBRARIES.get(library)


def _lacking_libraries(program: Path, env: Mapping[str, str]) -> list[str]:
    try:
        return _NOT_FOUND.findall(run(["ldd", program], env=env).stdout)
    except ToolFailed:
        # A static program has no libraries, which ldd reports as a failure.
        return []


def _link(link: Path, target: Path) -> None:
    """Point a link at a target atomically; several processes may do so at once."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
