"""Run containerd's command line `ctr` in a namespace that is created for one run and removed after it."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soci_pipeline.errors import EngineUnavailable, ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run
from soci_pipeline.machine.working_folder import PREFIX
from soci_pipeline.tool_versions import require_version

MINIMUM_CTR = (1, 5, 0)
PACKAGE = "containerd"
_SECONDS = 60.0


@dataclass(frozen=True)
class Containerd:
    """One namespace of a containerd. ``env`` is the environment for finding and running ``ctr``."""

    socket: Path
    namespace: str
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The environment with the variables for socket and namespace that ``ctr`` and ``soci`` read."""
        return {**self.env, "CONTAINERD_ADDRESS": str(self.socket), "CONTAINERD_NAMESPACE": self.namespace}

    def check(self) -> None:
        """Raise `ToolMissing` if ctr is missing or too old, `EngineUnavailable` if containerd does not respond."""
        printed = run(["ctr", "--version"], package=PACKAGE, env=self.environment, timeout=_SECONDS).stdout
        require_version("ctr", printed, MINIMUM_CTR, why="to import OCI archives", package=PACKAGE)
        try:
            self._ctr("version")
        except ToolFailed as error:
            raise EngineUnavailable(
                f"containerd does not answer at {self.socket}: {error.reason}",
                advice="Its socket usually requires root; run as root, or choose the toolchain `native`.",
            ) from error

    def import_archive(self, archive: Path) -> None:
        """Import all images of an OCI archive under the names in the archive, without unpacking them."""
        self._ctr("images", "import", "--all-platforms", "--no-unpack", str(archive), timeout=None)

    def push(self, reference: str) -> None:
        """Push an image over plain HTTP to a registry on this machine."""
        self._ctr("images", "push", "--plain-http", reference, timeout=None)

    def purge(self) -> None:
        """Remove the namespace and its content, if it exists."""
        if self.namespace not in self._listed("namespaces", "list"):
            return
        images, leases = self._listed("images", "list"), self._listed("leases", "list")
        if images:
            self._ctr("images", "remove", "--sync", *images)
        if leases:
            self._ctr("leases", "delete", "--sync", *leases)
        for blob in self._listed("content", "list"):
            # containerd's garbage collector may already have removed it.
            with contextlib.suppress(ToolFailed):
                self._ctr("content", "remove", blob)
        self._ctr("namespaces", "remove", self.namespace)

    def _listed(self, *words: str) -> list[str]:
        return self._ctr(*words, "--quiet").split()

    def _ctr(self, *words: str, timeout: float | None = _SECONDS) -> str:
        # Output is not streamed to the log, because ctr draws progress bars.
        return run(["ctr", *words], package=PACKAGE, env=self.environment, timeout=timeout).stdout


@contextlib.contextmanager
def purged_afterwards(containerd: Containerd) -> Iterator[Containerd]:
    """Purge the namespace after the block, even if it raises; a failed purge only logs a warning."""
    try:
        yield containerd
    finally:
        try:
            containerd.purge()
        except ToolFailed as error:
            logger().warning("cannot remove the namespace %s: %s", containerd.namespace, error.reason)


def remove_recorded_namespace(record: str, env: Mapping[str, str] | None) -> str | None:
    """Purge the namespace in the record of a killed run; return its name, or None if there was nothing to purge."""
    socket, _, name = record.strip().partition("\n")
    # Without a socket, either containerd and its namespaces are gone, or a later call retries.
    if not name.startswith(PREFIX) or not Path(socket).exists():
        return None
    Containerd(Path(socket), name, dict(os.environ if env is None else env)).purge()
    return name
