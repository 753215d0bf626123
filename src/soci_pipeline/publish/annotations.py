"""What an image index says of where it came from: annotations that repeat with the commit, and hold no secret."""

from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.annotations import CREATED, REVISION, SOURCE
from soci_pipeline.registry.reference import is_local_registry


def index_annotations(source: ResolvedSource) -> dict[str, str]:
    """The annotations of the image index; an address that means nothing on another machine is left out.

    The local stack serves its source on a port that changes, and the digest must not change with it.
    """
    found = commit_annotations(
        revision=source.commit, source=source.url, committed=datetime.fromtimestamp(source.commit_time, UTC)
    )
    if source.url.startswith(("/", "file:")) or is_local_registry(urlsplit(source.url).netloc.rpartition("@")[2]):
        del found[SOURCE]
    return found


def commit_annotations(*, revision: str, source: str, committed: datetime) -> dict[str, str]:
    """The annotations of an image index built from one commit; nothing in them depends on when it was built.

    ``committed`` is the commit's own time. Credentials in the source's URL are left out.
    """
    moment = committed.astimezone(UTC).replace(microsecond=0)
    return {
        CREATED: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        REVISION: revision,
        SOURCE: without_credentials(source),
    }


def without_credentials(url: str) -> str:
    """A git URL without user and password; ``git@host:path`` and local paths are left as they are."""
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    user, host = parts.netloc.rsplit("@", 1)
    # ssh's user is part of the address and no secret; a password behind it is one.
    kept = f"{user.split(':', 1)[0]}@{host}" if parts.scheme == "ssh" else host
    return urlunsplit(parts._replace(netloc=kept))
