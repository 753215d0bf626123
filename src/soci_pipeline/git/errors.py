"""Turn git's error messages into errors with a cause and a next step."""

import re
from http import HTTPStatus

from soci_pipeline.errors import TEMPORARY_STATUSES, SourceError, ToolFailed
from soci_pipeline.git.address import Origin, url_variants
from soci_pipeline.machine.programs import TooManyProcesses

# How git repeats a server's status code, and curl a proxy's. A bare number could be part of a URL or a commit id.
_HTTP_STATUS = re.compile(
    r"(?:returned error:|rpc failed; http|received http code|tunnel failed, response) ([0-9]{3})\b"
)
_UNANSWERED_PROMPT = re.compile(r"could not read (?:username|password) for '([^']+)'")
_DUMB_ADVICE = "Serve the repository with git's smart protocol (a forge or `git http-backend`), or use an ssh URL."
_REFUSALS = ("authentication failed", "could not read username", "permission denied")
_SILENCE = ("could not resolve", "failed to connect", "connection refused", "timed out", "connection reset")


class SourceRefused(SourceError):
    """The git server rejects the credentials."""


class UnsupportedServer(SourceError):
    """The server is a plain web server: it serves the repository's files, but not git's smart HTTP protocol."""

    default_advice = _DUMB_ADVICE


def no_such_ref(ref: str, url: str) -> SourceError:
    """Return the error for a ref that does not exist in the repository."""
    return SourceError(f"no branch, tag or commit {ref} in {url}", advice="Push it first, or correct `ref`.")


def source_error(error: ToolFailed, bound_to: Origin | None) -> SourceError:
    if isinstance(error, TooManyProcesses):
        return UnsupportedServer(error.reason)
    said = error.reason.lower()
    status = int(found[1]) if (found := _HTTP_STATUS.search(said)) else None
    if "dumb http transport" in said:
        return UnsupportedServer(f"git's dumb HTTP protocol is not supported\n{error.reason}")
    if "not supported or disabled in libcurl" in said:
        advice = "Set `source` to the URL that the server redirects to, if you trust that server."
        return SourceError(f"the git server redirects to a protocol that is not allowed\n{error.reason}", advice=advice)
    other = _other_server(said, bound_to)
    if other is not None:
        advice = "Set `source` to the URL of the server that requires the login, if you trust that server."
        return SourceError(
            f"{other} requires a login, but the credentials are only for {bound_to}\n{error.reason}", advice=advice
        )
    if status == HTTPStatus.FORBIDDEN or any(mark in said for mark in _REFUSALS):
        advice = "Set `source_credentials` to a block with credentials, or give the worker's user access."
        return SourceRefused(f"the git server rejected the credentials\n{error.reason}", advice=advice)
    if status in TEMPORARY_STATUSES or any(mark in said for mark in _SILENCE):
        advice = "Check the URL, and that the machine that builds can reach it."
        return SourceError(f"the git server does not answer\n{error.reason}", advice=advice, temporary=True)
    if any(mark in said for mark in ("not found", "does not exist", "not appear to be a git repository")):
        return SourceError(f"the git repository does not exist\n{error.reason}", advice="Check the URL in `source`.")
    if "can only add regular files" in said:
        advice = "Replace the FIFO, socket or device with a regular file."
        return SourceError(f"a tracked file is no longer a regular file\n{error.reason}", advice=advice)
    return SourceError(error.reason, advice="Run `git ls-remote` with the URL in `source` on that machine.")


def _other_server(said: str, bound_to: Origin | None) -> str | None:
    """Return the server that asked for a login, if the credentials are bound to another one."""
    prompt = _UNANSWERED_PROMPT.search(said)
    if prompt is None or bound_to is None:
        return None
    scheme, _, rest = prompt[1].partition("://")
    host = rest.rpartition("@")[2]
    known = (each.lower() for each in url_variants(bound_to.scheme, f"{bound_to.host}:{bound_to.port}"))
    return None if scheme == bound_to.scheme and host in known else f"{scheme}://{host}"
