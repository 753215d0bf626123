"""Validate URLs of git repositories and names of refs before git receives them.

Both are untrusted: they come from the parameters of a run (`check_url`) or from a push event
(`soci_pipeline.webhook.clone_urls`, which allows less).
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import InvalidInput
from soci_pipeline.hosts import is_forbidden
from soci_pipeline.urls import redacted

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters that no valid URL, path or name contains."""

COMMIT = r"^[0-9a-f]{40}(?:[0-9a-f]{24})?$"
"""The pattern of a full commit id, SHA-1 or SHA-256."""

MAX_REF_LENGTH = 1000
"""The maximum length of a ref, in characters. GitHub's limit is 255 bytes; other forges have none."""

_MAX_REF_PART = 255

DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
"""The schemes of remote repositories, with their default ports."""

_SCP = re.compile(r"(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?![0-9]*/)[\w~][^\s:]*\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
# Shells, HTML or logs may interpret these characters; no repository URL needs them, not even percent-encoded.
_QUOTES = re.compile(r"[\"'`$\\]")
_UNSAFE = re.compile(r"[\s\"'`$\\<>|;&(){}^*?#!]")
# `javascript:x` would otherwise match the scp form of ssh, with `javascript` as the host.
_SCHEMES_WITHOUT_HOST = frozenset(
    {"about", "blob", "data", "file", "ftp", "http", "https", "jar", "javascript", "mailto", "ssh", "vbscript"}
)
# What `git check-ref-format` forbids, and a leading dash.
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock$|/\.|\.lock/|^@$")
_ADVICE = "Use an https, ssh or git URL, or the absolute path of a git work tree; credentials belong in a block."


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a remote, to which its credentials are bound. ``host`` is in lower case."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def origin_of(url: str) -> Origin | None:
    """Return the server that git connects to for a URL (ssh for ``user@host:path``); None for a local path.

    Compare two origins to pin a source to a server. Raises `InvalidInput` if ``url`` is not a valid git URL.
    """
    codecommit = CodeCommitSource.parse(url)
    url = url if codecommit is None else codecommit.url
    if url.startswith("/"):
        return None
    scheme, separator, _ = url.partition("://")
    if not separator:
        return Origin("ssh", url.partition(":")[0].rpartition("@")[2].lower(), DEFAULT_PORTS["ssh"])
    if scheme == "file":
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or scheme not in DEFAULT_PORTS:
        raise InvalidInput("not a valid git URL", advice=_ADVICE)
    return Origin(scheme, f"[{host}]" if ":" in host else host, DEFAULT_PORTS[scheme] if port is None else port)


def is_commit(text: str) -> bool:
    """Whether ``text`` is a full commit id, not an abbreviated one."""
    return re.fullmatch(COMMIT, text) is not None


def check_url(url: str) -> str:
    """Return the stripped URL; raise `InvalidInput` if git could read it as an option or run a command for it.

    In URLs of remotes, this also rejects quotes, `$` and other characters that shells interpret, `..`, and link-local,
    multicast and metadata hosts.
    """
    text = url.strip()
    if not text or CONTROL.search(text) or text.startswith("-") or len(text) > 2000:
        raise _invalid_url(text)
    if CodeCommitSource.parse(text) is not None:
        return text
    if "::" in text.partition("://")[0].partition("/")[0]:
        raise InvalidInput(f"git's remote helpers are not allowed: {text[:200]!r}", advice=_ADVICE)
    if text.startswith("/"):
        return text
    if "://" not in text:
        return _check_scp(text)
    return _check_scheme(text)


def _check_scp(text: str) -> str:
    user, _, host = text.partition(":")[0].rpartition("@")
    if not _SCP.match(text) or (not user and host.lower() in _SCHEMES_WITHOUT_HOST):
        raise _invalid_url(text)
    return _check_remote(text, host)


def _check_scheme(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username or ""
        password, name, _ = parts.password, parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInput("not a valid git URL", advice=_ADVICE) from None
    if parts.scheme not in ("https", "http", "ssh", "git", "file"):
        raise InvalidInput(f"git over {parts.scheme[:30]!r} is not allowed", advice=_ADVICE)
    # The message omits the URL because it contains a secret.
    if password is not None or (user and parts.scheme in ("https", "http", "git")):
        raise InvalidInput(f"the git URL of {host} contains credentials", advice=_ADVICE)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise _invalid_url(text)
        return text
    if not _HOST.match(host) or user.startswith("-") or parts.path in ("", "/") or parts.path.startswith("/-"):
        raise _invalid_url(text)
    return _check_remote(text, name)


def _check_remote(text: str, host: str) -> str:
    decoded = unquote(text)
    if _UNSAFE.search(text) or not text.isprintable() or _QUOTES.search(decoded) or CONTROL.search(decoded):
        # The query string may contain a token.
        shown = redacted(text)[:200]
        raise InvalidInput(f"the git URL contains characters that are not allowed: {shown!r}", advice=_ADVICE)
    if ".." in re.split("[/:]", decoded):
        raise InvalidInput(f"'..' is not allowed in a git URL: {text[:200]!r}", advice=_ADVICE)
    if is_forbidden(host):
        reason = f"the git URL names a link-local, multicast or metadata host: {text[:200]!r}"
        raise InvalidInput(reason, advice=_ADVICE)
    return text


def _invalid_url(text: str) -> InvalidInput:
    return InvalidInput(f"not a valid git URL: {text[:200]!r}", advice=_ADVICE)


def check_ref(ref: str) -> str:
    """Return the stripped ref; raise `InvalidInput` if it cannot be a branch, tag or commit."""
    text = ref.strip()
    # The server may store each part as a folder or file name.
    longest = max(len(part.encode("utf-8", "replace")) for part in text.split("/"))
    if not text or len(text) > MAX_REF_LENGTH or longest > _MAX_REF_PART or _BAD_REF.search(text):
        raise InvalidInput(f"not a branch, tag or commit: {ref[:200]!r}", advice="Use its name, without options.")
    return text


def is_on_this_machine(url: str) -> bool:
    """Whether a URL is a local path."""
    return url.startswith(("/", "file://"))


def url_variants(scheme: str, host: str) -> list[str]:
    """Return the ways in which a prompt may spell this host and port."""
    default = f":{DEFAULT_PORTS[scheme]}"
    bare = host.removesuffix(default)
    has_port = bare.rpartition("]")[2].find(":") >= 0
    written = [bare] if has_port else [bare, f"{bare}{default}"]
    lower = [each.lower() for each in written]
    return sorted({spelled for each in (*written, *lower) for spelled in (each, each.replace("_", "%5F"))})
