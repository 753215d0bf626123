"""Settings of the registry client: retries, timeouts and limits. Times are in seconds, sizes in bytes."""

from dataclasses import dataclass

from soci_pipeline.retry import full_jitter


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Retries, timeouts and limits. The defaults suit a registry on the internet; tests shorten the waits."""

    attempts: int = 6
    """Maximum number of attempts for one request, or one part of an upload."""
    deadline: float = 900.0
    """Time limit of one operation including its retries; each byte of a blob adds ``1 / slowest_rate``."""
    slowest_rate: float = 1 << 20
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    part_size: int = 256 << 20
    """Maximum size of one part; larger blobs are uploaded in parts, each of which can be resumed. The registry flushes
    to storage after each part, so parts are as large as is acceptable to send again. Registries may require smaller
    parts; `publish.registries.connect` sets the size for ECR."""
    read_size: int = 1 << 20
    max_connections: int = 32
    settle_time: float = 20.0
    """How long "not found" is retried for content that this client has pushed (ECR is eventually consistent)."""

    def backoff(self, attempt: int) -> float:
        """Return an exponential backoff with full jitter, so that many clients do not retry at the same time."""
        return full_jitter(attempt, first=self.backoff_base, most=self.backoff_cap)
