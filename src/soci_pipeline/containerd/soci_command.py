"""Run the `soci` program without leaving files on the machine.

`soci create` stores its zTOCs and its database in a fixed folder with a single lock. Releases that support ``--root``
use a folder of the run instead. For older releases the run's folder is mounted over the fixed one, in a private mount
namespace of that process.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.errors import ToolFailed
from soci_pipeline.machine.programs import find, run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.tool_versions import Version, require_version

PACKAGE = "soci-snapshotter"
MINIMUM_SOCI = (0, 4, 0)
MINIMUM_STANDALONE = (0, 14, 0)
"""The first release that supports ``convert --standalone``."""

NOTHING_INDEXED = "no ztocs created"
"""Message of `soci` if every layer is smaller than the minimum; the exit status is 1."""

_FIXED_STORE = Path("/var/lib/soci-snapshotter-grpc")
_OURS = 0o710
_SECONDS = 60.0
_MOUNTED = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class SociCommand:
    """A `soci` program with a supported version. ``store`` is the folder for its files."""

    program: Path
    version: Version
    env: Mapping[str, str]
    store: Path
    has_root_flag: bool

    def create(self, reference: str, platform: Platform, options: SociOptions) -> bool:
        """Index an image in containerd (v1); return False if no layer is large enough, which is not an error."""
        words = ["create", "--platform", str(platform), *_sizes(options), reference]
        try:
            output = self._with_store(words)
        except ToolFailed as error:
            if NOTHING_INDEXED in error.reason:
                return False
            raise
        return "-> ztoc" in output or NOTHING_INDEXED not in output

    def push(self, reference: str, platform: Platform) -> None:
        """Push the SOCI index of an image over plain HTTP to a registry on this machine."""
        self._with_store(["push", "--plain-http", "--platform", str(platform), reference])

    def convert(self, source: Path, destination: Path, options: SociOptions) -> bool:
        """Convert an OCI layout without containerd (v2); return False, without output, if no layer is large enough."""
        words = ["convert", "--standalone", "--format", "oci-dir", "--all-platforms", *_sizes(options)]
        # TZ: soci writes local times into zTOCs, so their digests would differ between machines.
        env = {**self.env, "TZ": "UTC", "TMPDIR": str(self.store)}
        try:
            run([self.program, *words, str(source), str(destination)], env=env, stream=True)
        except ToolFailed as error:
            if NOTHING_INDEXED in error.reason:
                return False
            raise
        return True

    def _with_store(self, words: list[str]) -> str:
        env = {**self.env, "TZ": "UTC"}
        if self.has_root_flag:
            return run([self.program, "--root", str(self.store), *words], env=env, stream=True).stdout
        with _mount_point(_FIXED_STORE):
            shell = ["sh", "-c", _MOUNTED, "sh", str(self.store), str(_FIXED_STORE)]
            argv = ["unshare", "--mount", "--propagation", "private", *shell, str(self.program), *words]
            return run(argv, package="util-linux", env=env, stream=True).stdout


def find_soci(env: Mapping[str, str], store: Path, *, minimum: Version = MINIMUM_SOCI) -> SociCommand:
    """Find `soci` on the PATH of ``env``; raise `ToolMissing` if it is missing or older than ``minimum``."""
    program = find("soci", package=PACKAGE, env=env)
    printed = run([program, "--version"], env=env, timeout=_SECONDS).stdout
    why = "for `convert --standalone`" if minimum >= MINIMUM_STANDALONE else "to create a SOCI index"
    version = require_version("soci", printed, minimum, why=why, package=PACKAGE)
    store.mkdir(parents=True, exist_ok=True)
    help_text = run([program, "--help"], env=env, timeout=_SECONDS).stdout
    return SociCommand(program, version, dict(env), store, has_root_flag="--root " in help_text)


def _sizes(options: SociOptions) -> list[str]:
    return ["--span-size", str(options.span_size), "--min-layer-size", str(options.min_layer_size)]


@contextlib.contextmanager
def _mount_point(path: Path) -> Iterator[None]:
    """Ensure that a mount point exists; the last run that uses it removes it if a run has created it.

    Runs hold a shared lock on the parent folder. Removal requires an exclusive lock, because removing the folder would
    also unmount it for other runs. A folder created by a run is recognised by its mode.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(parent, fcntl.LOCK_SH)
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(_OURS)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(parent, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_IMODE(path.stat().st_mode) == _OURS:
                    path.rmdir()
    finally:
        os.close(parent)
