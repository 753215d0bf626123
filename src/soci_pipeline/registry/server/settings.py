"""Settings of the embedded registry. Times are in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from soci_pipeline.registry.server.authentication import Login
from soci_pipeline.registry.server.repository import MOST_ENTRIES


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of an embedded registry. The defaults: no authentication, all features of the spec."""

    login: Login | None = None
    immutable: Callable[[str], bool] | None = None
    """Predicate: whether a tag must not move to another digest."""
    referrers: bool = True
    """Whether there is a referrers API; if not, it returns 404 and OCI-Subject is omitted, as in older registries."""
    automatic_mount: bool = True
    """Whether a mount without a source uses any repository that the client may read."""
    most_entries: int = MOST_ENTRIES
    """Maximum number of manifests and tags in one repository; a push beyond it fails."""
    sync: bool = False
    """Whether to acknowledge a push only when its content is on the disk, so that it survives a power failure."""
    connections_per_address: int = 256
    """Maximum number of connections from one IP address. A proxy in front of the registry counts as one address."""
    stall_seconds: float = 30.0
    """Timeout after which the connection of a stalled client is closed."""
