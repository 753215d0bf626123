"""Download and verify packages of Debian or Ubuntu with apt, into our own folder; nothing is installed.

apt runs with separate lists, cache, state and sources below the folder. The mirror is the one configured on the
machine, so no host is hard-coded, and every package is verified through the archive's signed index.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

from local_stack.folder_lock import folder_lock
from soci_pipeline.errors import InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform

OS_RELEASE = Path("/etc/os-release")
_CONFIGURATION = Path("/etc/apt/apt.conf.d")
_KEYRINGS = {
    "debian": Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}
_COMPONENTS = {"debian": ("main",), "ubuntu": ("main", "universe")}
# Releases whose own engine or tools are too old, and a release whose packages also run on them.
_NEWER = {("debian", "bookworm"): "trixie"}
_UNSTABLE = {"debian": "sid"}
_ARCHITECTURES = {"amd64": "amd64", "arm64": "arm64"}


class Suite(Enum):
    """The release from which a package is taken."""

    OWN = "own"
    """The machine's release: for packages tied to its C library."""
    NEWER = "newer"
    """A newer release if the machine's is listed as too old, else the machine's own."""
    UNSTABLE = "unstable"
    """The release in development, which changes daily: for tests with future versions."""


@dataclass(frozen=True, slots=True)
class Release:
    """The machine's distribution (``debian`` or ``ubuntu``) and the code name of its release."""

    distribution: str
    codename: str

    @classmethod
    def of_this_machine(cls, os_release: Path = OS_RELEASE) -> Self:
        """Read os-release(5); raise `ToolMissing` if this is not Debian or Ubuntu, or has no apt."""
        try:
            fields = _os_release_fields(os_release.read_text())
        except OSError:
            fields = {}
        distribution, codename = fields.get("ID", ""), fields.get("VERSION_CODENAME", "")
        if distribution not in _KEYRINGS or not codename or not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise ToolMissing(
                f"packages can only be downloaded on Debian and Ubuntu, not on {fields.get('PRETTY_NAME', 'neither')}",
                advice="Install the tools with the machine's own package manager, or run this on Debian or Ubuntu.",
            )
        return cls(distribution, codename)

    def codename_of(self, suite: Suite) -> str:
        """Return the code name of a suite on this machine; raise `ToolMissing` if there is none."""
        if suite is Suite.OWN:
            return self.codename
        if suite is Suite.UNSTABLE:
            return self._unstable()
        return _NEWER.get((self.distribution, self.codename), self.codename)

    def _unstable(self) -> str:
        if self.distribution not in _UNSTABLE:
            raise ToolMissing(
                f"packages of a release in development can only be downloaded on Debian, not on {self.distribution}"
            )
        return _UNSTABLE[self.distribution]


class PackageArchive:
    """apt for one architecture and some suites, with its state in ``folder``; safe for concurrent processes."""

    def __init__(
        self,
        folder: Path,
        *,
        architecture: str | None = None,
        release: Release | None = None,
        suites: Sequence[Suite] = (Suite.OWN, Suite.NEWER),
    ) -> None:
        self.release = release or Release.of_this_machine()
        self._codenames = tuple(dict.fromkeys(map(self.release.codename_of, suites)))
        self.architecture = architecture or debian_architecture(Platform.native())
        self.folder = folder.absolute() / self.architecture

    def download(self, package: str, suite: Suite, destination: Path) -> Path:
        """Download one package into an empty folder; raise `ToolMissing` if the suite lacks it, `ToolFailed`."""
        specification = f"{package}/{self.release.codename_of(suite)}"
        with folder_lock(self.folder):
            self._refresh()
            if not self._has(package, suite):
                raise ToolMissing(
                    f"{self.release.distribution} {self.release.codename_of(suite)} has no package {package}",
                    advice="Install the tool by hand and put it on the PATH, or use a newer release.",
                )
            self._twice(["download", specification], cwd=destination)
        return _only(destination.glob("*.deb"), specification)

    def closure(self, packages: Sequence[str]) -> tuple[Path, ...]:
        """Download packages of the machine's own release with all dependencies; return paths sorted by package name.

        No package counts as installed, so the C library is included. No code of the packages is run, so the
        architecture may be a foreign one.
        """
        cache = self.folder / "closure"
        with folder_lock(self.folder):
            self._refresh()
            shutil.rmtree(cache, ignore_errors=True)
            (cache / "partial").mkdir(parents=True)
            own = [f"{package}/{self.release.codename}" for package in packages]
            options = ["-o", f"Dir::Cache::archives={cache}", "-o", "Debug::NoLocking=1", "--no-install-recommends"]
            self._twice([*options, "--download-only", "--yes", "-t", self.release.codename, "install", *own])
        return tuple(sorted(cache.glob("*.deb")))

    def _has(self, package: str, suite: Suite) -> bool:
        listing = run(["apt-cache", *self._options(), "madison", package], env=self._environment()).stdout
        return f" {self.release.codename_of(suite)}/" in listing

    def _twice(self, words: Sequence[str], *, cwd: Path | None = None) -> None:
        try:
            self._apt_get(words, cwd=cwd)
        except ToolFailed as error:
            # A mirror drops old versions that an outdated list still names.
            logger().info(
                "downloading packages failed; trying again with new package lists (%s)", error.reason.splitlines()[-1]
            )
            self._refresh(again=True)
            self._apt_get(words, cwd=cwd)

    def _apt_get(self, words: Sequence[str], *, cwd: Path | None = None) -> None:
        run(["apt-get", "-q", *self._options(), *words], env=self._environment(), cwd=cwd, timeout=900)

    def _refresh(self, *, again: bool = False) -> None:
        fresh = self.folder / "lists-are-complete"
        if fresh.exists() and not again:
            return
        fresh.unlink(missing_ok=True)
        for name in ("state", "lists/partial", "cache/archives/partial", "apt.conf.d"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        self._link_configuration()
        logger().info("fetching the package lists of %s (%s)", " and ".join(self._codenames), self.architecture)
        (self.folder / "sources.list").write_text(self._sources(self._mirror()))
        self._apt_get(["-o", "APT::Update::Error-Mode=any", "update"])
        fresh.touch()

    def _sources(self, mirror: str) -> str:
        keyring = _KEYRINGS[self.release.distribution]
        trust = f"[signed-by={keyring}] " if keyring.exists() else ""
        components = " ".join(_COMPONENTS[self.release.distribution])
        return "".join(f"deb {trust}{mirror} {codename} {components}\n" for codename in self._codenames)

    def _mirror(self) -> str:
        """Return the URL of the machine's mirror for its own release."""
        form = "$(CODENAME) $(COMPONENT) $(REPO_URI)"
        query = ["indextargets", "--format", form, "Created-By: Packages"]
        listing = run(["apt-get", *query], env=_machine_environment()).stdout
        if not _mirror_in(listing, self.release):
            # A machine with empty lists reports its targets only once lists exist, and its own must not be changed.
            lists = self.folder / "machine-lists"
            (lists / "partial").mkdir(parents=True, exist_ok=True)
            private = ["-o", f"Dir::State::lists={lists}", *self._private()]
            run(["apt-get", "-q", *private, "update"], env=self._environment(), timeout=600)
            listing = run(["apt-get", *private, *query], env=self._environment()).stdout
        mirror = _mirror_in(listing, self.release)
        if mirror is None:
            raise ToolMissing(
                f"apt on this machine has no source for {self.release.distribution} {self.release.codename}",
                advice="Add the distribution's archive to /etc/apt/sources.list.d and run apt-get update.",
            )
        return mirror

    def _link_configuration(self) -> None:
        """Link the machine's own settings (such as a proxy), without hooks that would change the machine."""
        parts = self.folder / "apt.conf.d"
        shutil.rmtree(parts)
        parts.mkdir()
        for path in sorted(_CONFIGURATION.glob("*")) if _CONFIGURATION.is_dir() else ():
            if path.is_file() and os.access(path, os.R_OK) and "-Invoke" not in path.read_text(errors="replace"):
                (parts / path.name).symlink_to(path)
        (self.folder / "apt.conf").write_text(f'Dir::Etc::parts "{parts}";\n')

    def _private(self) -> list[str]:
        settings = {
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _options(self) -> list[str]:
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "Dir::State::lists": self.folder / "lists",
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
        }
        return self._private() + [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _environment(self) -> dict[str, str]:
        return _machine_environment() | {"APT_CONFIG": str(self.folder / "apt.conf")}


def debian_architecture(platform: Platform) -> str:
    """Return Debian's name of a platform; raise `InvalidInput` for an unsupported one."""
    name = _ARCHITECTURES.get(platform.architecture)
    if platform.os != "linux" or name is None:
        raise InvalidInput(f"there are no packages for {platform}", advice="Use linux/amd64 or linux/arm64.")
    return name


def _machine_environment() -> dict[str, str]:
    return dict(os.environ) | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _os_release_fields(text: str) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _mirror_in(listing: str, release: Release) -> str | None:
    for line in listing.splitlines():
        matched = re.fullmatch(r"(\S+) (\S+) (\S+)", line.strip())
        if matched and matched[1] == release.codename and matched[2] == "main" and "security" not in matched[3]:
            return matched[3]
    return None


def _only(paths: Iterable[Path], what: str) -> Path:
    found = list(paths)
    if len(found) != 1:
        raise ToolFailed(f"apt-get download {what} left {len(found)} packages", advice=None)
    return found[0]
