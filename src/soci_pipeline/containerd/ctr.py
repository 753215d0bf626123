"""containerd through its own command line, in a namespace that belongs to one run and goes with it."""

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
    """One namespace of a containerd. ``env`` is the environment in which ``ctr`` is found and runs."""

    socket: Path
    namespace: str
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What ``ctr`` and ``soci`` read to find the socket and the namespace."""
        return {**self.env, "CONTAINERD_ADDRESS": str(self.socket), "CONTAINERD_NAMESPACE": self.namespace}

    def check(self) -> None:
        """Raise `ToolMissing` for a missing or old ctr, `EngineUnavailable` where containerd does not answer it."""
        printed = run(["ctr", "--version"], package=PACKAGE, env=self.environment, timeout=_SECONDS).stdout
        require_version("ctr", printed, MINIMUM_CTR, why="to import OCI archives", package=PACKAGE)
        try:
            self._ctr("version")
        except ToolFailed as error:
            raise EngineUnavailable(
                f"containerd does not answer at {self.socket}: {error.reason}",
                advice="Its socket usually needs root; or choose the toolchain `native`.",
            ) from error

    def import_archive(self, archive: Path) -> None:
        """Import all images of an OCI archive under the names that it gives; nothing is unpacked."""
        self._ctr("images", "import", "--all-platforms", "--no-unpack", str(archive), timeout=None)

    def push(self, reference: str) -> None:
        """Push an image, over plain HTTP, to a registry on this machine."""
        self._ctr("images", "push", "--plain-http", reference, timeout=None)

    def purge(self) -> None:
        """Remove the namespace with everything in it; one that is not there is fine."""
        if self.namespace not in self._listed("namespaces", "list"):
            return
        images, leases = self._listed("images", "list"), self._listed("leases", "list")
        if images:
            self._ctr("images", "remove", "--sync", *images)
        if leases:
            self._ctr("leases", "delete", "--sync", *leases)
        for blob in self._listed("content", "list"):
            # The collector may have been quicker.
            with contextlib.suppress(ToolFailed):
                self._ctr("content", "remove", blob)
        self._ctr("namespaces", "remove", self.namespace)

    def _listed(self, *words: str) -> list[str]:
        return self._ctr(*words, "--quiet").split()

    def _ctr(self, *words: str, timeout: float | None = _SECONDS) -> str:
        # Not streamed: it draws progress bars.
        return run(["ctr", *words], package=PACKAGE, env=self.environment, timeout=timeout).stdout


@contextlib.contextmanager
def purged_afterwards(containerd: Containerd) -> Iterator[Containerd]:
    """Purge the namespace when the block is left, whatever happened in it; a failing purge hides no other error."""
    try:
        yield containerd
    finally:
        try:
            containerd.purge()
        except ToolFailed as error:
            logger().warning("namespace %s could not be removed: %s", containerd.namespace, error.reason)


def remove_recorded_namespace(record: str, env: Mapping[str, str] | None) -> str | None:
    """Purge the namespace of a killed run, by its record; returns its name, None where nothing was to be purged."""
    socket, _, name = record.strip().partition("\n")
    # A containerd that is gone has taken its namespaces with it, or will be asked again when it is back.
    if not name.startswith(PREFIX) or not Path(socket).exists():
        return None
    Containerd(Path(socket), name, dict(os.environ if env is None else env)).purge()
    return name
