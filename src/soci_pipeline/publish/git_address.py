"""Addresses of git repositories and names of refs, checked before git sees them.

Either comes from strangers: from the parameters of a run, or from the event of a push.
"""

import re
from urllib.parse import urlsplit

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import InvalidInput

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""What no address, path or name has in it."""

COMMIT = r"^[0-9a-f]{40}(?:[0-9a-f]{24})?$"
"""The pattern of a whole commit id, of SHA-1 or SHA-256."""

_SCP = re.compile(r"(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?![0-9]*/)[\w~][^\s:]*\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
# What `git check-ref-format` forbids, and a leading dash.
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock$|/\.|\.lock/|^@$")
_ADVICE = "Give an https, ssh or git address, or the absolute path of a git work tree; credentials belong in a block."


def is_commit(text: str) -> bool:
    """Whether it is a whole commit id, and not an abbreviated one."""
    return re.fullmatch(COMMIT, text) is not None


def check_url(url: str) -> str:
    """The address itself; raises `InvalidInput` where git would take it for an option or run a command of it."""
    text = url.strip()
    if not text or CONTROL.search(text) or text.startswith("-") or len(text) > 2000:
        raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)
    if CodeCommitSource.parse(text) is not None:
        return text
    if "::" in text.partition("://")[0].partition("/")[0]:
        raise InvalidInput(f"git's remote helpers are not allowed: {text[:200]!r}", advice=_ADVICE)
    if text.startswith("/"):
        return text
    if "://" in text:
        return _check_scheme(text)
    if _SCP.match(text):
        return text
    raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)


def _check_scheme(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username or ""
        password = parts.password
    except ValueError:
        raise InvalidInput("not a git address", advice=_ADVICE) from None
    if parts.scheme not in ("https", "http", "ssh", "git", "file"):
        raise InvalidInput(f"git over {parts.scheme[:30]!r} is not allowed", advice=_ADVICE)
    # The address is not repeated: it holds a secret.
    if password is not None or (user and parts.scheme in ("https", "http", "git")):
        raise InvalidInput(f"the git address of {host} holds credentials", advice=_ADVICE)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)
        return text
    if not _HOST.match(host) or user.startswith("-") or parts.path in ("", "/") or parts.path.startswith("/-"):
        raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)
    return text


def check_ref(ref: str) -> str:
    """The ref itself; raises `InvalidInput` for what can be no branch, tag or commit."""
    text = ref.strip()
    if not text or len(text) > 255 or _BAD_REF.search(text):
        raise InvalidInput(f"not a branch, tag or commit: {ref[:200]!r}", advice="Give its name, without options.")
    return text
