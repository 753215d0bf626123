"""What a publication is built from, found once and read by every step."""

from dataclasses import dataclass

from soci_pipeline.git.source import ResolvedSource


@dataclass(frozen=True, slots=True)
class Source:
    """One commit of a git repository.

    ``credentials`` names the place that holds them (a Prefect block or an ARN). It is never their value: steps read the
    place when they contact the repository.
    """

    commit: ResolvedSource
    credentials: str | None = None
