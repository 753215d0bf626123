"""The annotations of an image index that describe its source; they depend only on the commit and contain no secret."""

from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.annotations import CREATED, REVISION, SOURCE
from soci_pipeline.registry.reference import is_local_registry


def index_annotations(source: ResolvedSource) -> dict[str, str]:
    """Return the annotations of the image index; omit a URL that is only valid on this machine.

    The local stack serves its source on a changing port, and the digest must not change with it.
    """
    found = commit_annotations(
        revision=source.commit, source=source.url, committed=datetime.fromtimestamp(source.commit_time, UTC)
    )
    if source.url.startswith(("/", "file:")) or is_local_registry(urlsplit(source.url).netloc.rpartition("@")[2]):
        del found[SOURCE]
    return found


def commit_annotations(*, revision: str, source: str, committed: datetime) -> dict[str, str]:
    """Return the annotations of an image index built from one commit; nothing in them depends on the time of the build.

    ``committed`` is the time of the commit. Credentials in the source's URL are removed.
    """
    moment = committed.astimezone(UTC).replace(microsecond=0)
    return {
        CREATED: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        REVISION: revision,
        SOURCE: without_credentials(source),
    }


def without_credentials(url: str) -> str:
    """Remove user and password from a git URL; ``git@host:path`` and local paths are not changed."""
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    user, host = parts.netloc.rsplit("@", 1)
    # The user of an ssh URL is part of the address and not a secret; a password after it is one.
    kept = f"{user.split(':', 1)[0]}@{host}" if parts.scheme == "ssh" else host
    return urlunsplit(parts._replace(netloc=kept))
