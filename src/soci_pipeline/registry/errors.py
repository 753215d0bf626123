"""Errors of the registry client.

Every error holds the spec's error code, the HTTP status, the URL without query and user info (both may contain
secrets), and whether a retry may succeed. Codes: distribution-spec, "Error Codes".
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from soci_pipeline.errors import (
    TEMPORARY_STATUSES,
    CredentialsRefused,
    DamagedContent,
    ExitCode,
    SociPipelineError,
    TagConflict,
)
from soci_pipeline.retry import retry_after_s
from soci_pipeline.urls import redacted

MAX_ERROR_BYTES = 64 << 10
"""Maximum number of bytes read from the body of an error response."""

# Messages about an immutable tag or a locked image, from Harbor and ECR, Artifact Registry, Nexus and Azure.
_LOCKED = re.compile(r"immutab|does not allow updating|operation is disallowed", re.IGNORECASE)
_TEMPORARY_CODES = frozenset({"TOOMANYREQUESTS", "UNAVAILABLE"})
_SHOWN = 300
_CONTENT = re.compile(r"/v2/(?P<name>.+)/(?P<part>manifests|tags|blobs|referrers)/(?P<reference>.*)\Z")


class RegistryError(SociPipelineError):
    """A request to a registry failed.

    ``code`` and ``message`` are the spec's error code and message from the response (may be empty); ``retry_after`` is
    in seconds.
    """

    exit_code = ExitCode.REGISTRY_REFUSED

    def __init__(
        self,
        reason: str,
        *,
        code: str = "",
        message: str = "",
        status: int = 0,
        url: str = "",
        advice: str | None = None,
        temporary: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.code = code
        self.message = message
        self.status = status
        self.url = redacted(url)
        self.retry_after = retry_after


class ManifestUnknown(RegistryError):
    """The repository has no manifest with that tag or digest, or the repository does not exist."""

    default_advice = "Check the repository's name, and the tag or digest."


class BlobUnknown(RegistryError):
    """The repository has no blob with that digest, or a manifest was pushed before the content it refers to."""


class RepositoryUnknown(ManifestUnknown):
    """The repository does not exist, and this registry does not create it on the first push."""

    default_advice = "Create the repository in the registry first, or check its name."


class UploadUnknown(RegistryError):
    """The upload session no longer exists or rejects a part at that offset; retry with a new session."""


class AccessRefused(RegistryError, CredentialsRefused):
    """Credentials are missing, rejected, or lack permission for the request."""

    exit_code = ExitCode.CREDENTIALS


class ImmutableTag(RegistryError, TagConflict):
    """The tag points at another digest, and the registry does not allow moving it."""

    exit_code = ExitCode.TAG_CONFLICT
    default_advice = "Use a new tag, or make the tag mutable in the registry's settings."


class RegistryUnreachable(RegistryError):
    """No response: DNS lookup, connection or TLS failed, the connection broke, or a timeout expired."""

    exit_code = ExitCode.REGISTRY_UNREACHABLE
    default_advice = "Check the address, and that the registry is running and reachable from this machine."
    hub_advice = "A name without a registry means Docker Hub: add the registry's host, or check the network."
    plain_advice = (
        "A registry on loopback is used without TLS; to enable TLS, set --ca-file (SOCI_PIPELINE_REGISTRY_CA_FILE) "
        "to its certificate authority."
    )
    tls_advice = (
        "For a private certificate authority, set --ca-file (SOCI_PIPELINE_REGISTRY_CA_FILE on a worker); for a "
        "registry without TLS, --plain-http (SOCI_PIPELINE_REGISTRY_PLAIN_HTTP)."
    )


class BrokenAnswer(RegistryError):
    """A response violates the distribution spec or exceeds a limit; it was not used."""


class ContentMismatch(RegistryError, DamagedContent):
    """The registry served bytes that do not match their digest or size."""

    exit_code = ExitCode.DAMAGED_CONTENT
    default_advice = "The copy in the registry or the connection to it is damaged: publish the content again."


_TOO_LARGE = 413
_LIMITED = (
    "The registry or a proxy in front of it limits the size of a request: raise the limit (nginx: "
    "client_max_body_size), or lower SOCI_PIPELINE_REGISTRY_PART_SIZE."
)
_OUTAGE = "The registry or a proxy in front of it failed: try again later, and read its log for the cause."


def from_answer(
    method: str,
    url: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    secrets: Collection[str] = (),
) -> RegistryError:
    """Create the error for an unexpected response.

    ``now`` is the Unix time, needed if Retry-After is a date. ``secrets`` were part of the request; if the response
    repeats one, it is masked.
    """
    code, message = _first_error(body, secrets)
    address = redacted(url)
    said = ": ".join(part for part in (code, message) if part)
    reason = f"{method} {address} was answered with status {status}" + (f" ({said})" if said else "")
    kind = _kind(method, status, code, message, address)
    return kind(
        _missing_prefix(kind, method, address) + reason,
        advice=_advice(kind, status),
        code=code,
        message=message,
        status=status,
        url=address,
        temporary=status in TEMPORARY_STATUSES or code in _TEMPORARY_CODES,
        retry_after=retry_after_s(headers.get("retry-after"), now=now),
    )


def _advice(kind: type[RegistryError], status: int) -> str | None:
    if kind is not RegistryError:
        return None
    if status == _TOO_LARGE:
        return _LIMITED
    return _OUTAGE if status in TEMPORARY_STATUSES and status >= 500 else None


def _missing_prefix(kind: type[RegistryError], method: str, address: str) -> str:
    """Return a prefix that names the missing repository, manifest or tag, or "" if nothing is known to be missing."""
    found = _CONTENT.search(address)
    if found is None or not issubclass(kind, ManifestUnknown):
        return ""
    name, reference = found["name"], found["reference"]
    if kind is RepositoryUnknown or found["part"] == "tags":
        return f"the repository {name} does not exist: "
    # A PUT creates the manifest, so a 404 means that something else is missing.
    if found["part"] != "manifests" or method == "PUT":
        return ""
    return f"{name} has no {'manifest' if ':' in reference else 'tag'} {reference}: "


def _kind(method: str, status: int, code: str, message: str, url: str) -> type[RegistryError]:
    if "immutable" in message.lower() or code in ("TAG_IMMUTABLE", "ImageTagAlreadyExistsException"):
        return ImmutableTag
    if method == "PUT" and "/manifests/" in url and _LOCKED.search(message):
        return ImmutableTag
    if status in (401, 403):
        return AccessRefused
    if code == "NAME_UNKNOWN":
        return RepositoryUnknown
    if "/blobs/uploads/" in url and (code == "BLOB_UPLOAD_UNKNOWN" or status in (404, 416)):
        return UploadUnknown
    if code in ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN") or (status == 404 and "/blobs/" in url):
        return BlobUnknown
    return ManifestUnknown if status == 404 else RegistryError


def _first_error(body: bytes, secrets: Collection[str]) -> tuple[str, str]:
    try:
        document: Any = json.loads(body)
        first = document["errors"][0]
        detail = first.get("detail")
        message = " ".join(str(part) for part in (first.get("message"), detail) if part)
        return _shown(str(first.get("code") or ""), secrets), _shown(message, secrets)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", ""


def _shown(text: str, secrets: Collection[str]) -> str:
    # Registry messages are printed to terminals and logs, so mask secrets and replace control characters.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_SHOWN].strip()
