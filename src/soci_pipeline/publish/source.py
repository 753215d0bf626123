"""The source of a publication, resolved once and read by every step."""

from dataclasses import dataclass

from soci_pipeline.git.source import ResolvedSource


@dataclass(frozen=True, slots=True)
class Source:
    """One commit of a git repository.

    ``credentials`` is the name of their location (a Prefect block or an ARN), never their value: steps read them when
    they contact the repository.
    """

    commit: ResolvedSource
    credentials: str | None = None
