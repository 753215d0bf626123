"""How patient and how careful the registry client is. All times are in seconds, all sizes in bytes."""

from dataclasses import dataclass

from soci_pipeline.retry import full_jitter


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The defaults suit a registry over the internet; tests shorten the waits."""

    attempts: int = 6
    """How often one request, or one part of an upload, is tried."""
    deadline: float = 900.0
    """For one whole operation with all its repeats; each byte of a blob adds ``1 / slowest_rate``."""
    slowest_rate: float = 1 << 20
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    part_size: int = 256 << 20
    """A blob larger than this goes up in parts of at most this size, each of which can be resumed. After each the
    registry writes out what it has, so they are as large as what is worth sending again. Registries may want
    less; `publish.registries.connect` knows what ECR takes."""
    read_size: int = 1 << 20
    max_connections: int = 32
    settle_time: float = 20.0
    """How long "not found" is doubted for what this client has just pushed (ECR is consistent only eventually)."""

    def backoff(self, attempt: int) -> float:
        """Full jitter: anything up to the exponential bound, so that many clients do not knock at once."""
        return full_jitter(attempt, first=self.backoff_base, most=self.backoff_cap)
