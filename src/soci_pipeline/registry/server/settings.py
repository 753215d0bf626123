"""How an embedded registry behaves. Sizes are in bytes, times in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from soci_pipeline.registry.server.authentication import Login
from soci_pipeline.registry.server.repository import MOST_ENTRIES


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The defaults are an open registry with everything the spec has."""

    login: Login | None = None
    immutable: Callable[[str], bool] | None = None
    """Which tags may not move to another digest."""
    referrers: bool = True
    """False answers 404 to the referrers API and leaves OCI-Subject out, as older registries do."""
    automatic_mount: bool = True
    """Whether a mount that names no source takes the blob from any repository that the client may read."""
    most_entries: int = MOST_ENTRIES
    """How many manifests and tags one repository takes before a push is refused."""
    sync: bool = False
    """Whether a push is answered only once its content is on the disk, so that it survives a power failure."""
    connections_per_address: int = 256
    """How many connections one network address may have. A proxy before the registry is one address."""
    stall_seconds: float = 30.0
    """How long a client may do nothing that the registry waits for, before its connection is closed."""
