"""Sign git in to one remote, and to no other, with scripts and files that are removed with the session."""

import os
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from soci_pipeline.git.address import DEFAULT_PORTS, Origin, origin_of, url_variants
from soci_pipeline.git.config import quoted

if TYPE_CHECKING:
    import boto3

# An agent (forwarded or not) or a shared connection would let others use the key.
_SSH_WITH_KEY = (
    "ssh -o BatchMode=yes -o IdentitiesOnly=yes -o AddKeysToAgent=no -o ForwardAgent=no"
    " -o ControlMaster=no -o ControlPath=none"
)


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """A user and a password or token for http(s), a private key for ssh, or an AWS session for CodeCommit."""

    username: str = "git"
    password: SecretStr | None = None
    ssh_key: SecretStr | None = None
    aws: "boto3.Session | None" = None


@dataclass(frozen=True, slots=True)
class Access:
    """How git signs in to one remote."""

    environment: dict[str, str]
    options: tuple[str, ...] = ()
    bound_to: Origin | None = None
    configuration: str = ""
    helper: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, url: str, credentials: GitCredentials | None) -> "Access":
        """Return how git signs in to ``url``; write only what its transport uses into ``folder``."""
        origin = origin_of(url)
        if credentials is None or origin is None:
            return cls({})
        if origin.scheme in ("http", "https") and credentials.password is not None:
            environment, options = _password_access(folder, url, credentials.username, credentials.password)
            configuration = _password_configuration(url, credentials.username)
            return cls(environment, options, origin, configuration, _helper_options(folder, origin))
        if origin.scheme == "ssh" and credentials.ssh_key is not None:
            write_private(folder / "key", credentials.ssh_key.get_secret_value().rstrip("\n") + "\n")
            return cls({"GIT_SSH_COMMAND": f"{_SSH_WITH_KEY} -i {shlex.quote(str(folder / 'key'))}"}, (), origin)
        return cls({})


def _password_access(
    folder: Path, url: str, username: str, password: SecretStr
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment and options with which git signs in to the server of this URL, and to no other."""
    scheme, _, rest = url.partition("://")
    user_in_url, _, host = rest.partition("/")[0].rpartition("@")
    write_private(folder / "username", username)
    write_private(folder / "password", password.get_secret_value())
    write_private(folder / "askpass", _askpass(folder, scheme, host, {username, user_in_url} - {""}), mode=0o700)
    write_private(folder / "helper", _credential_helper(folder, scheme, host), mode=0o700)
    options = (
        # The machine's own helpers would store the login. With paths in the prompts, the script would not recognise
        # them.
        *("-c", "credential.helper=", "-c", "credential.useHttpPath=false"),
        *("-c", f"credential.{scheme}://{host}.useHttpPath=false"),
    )
    return {"GIT_ASKPASS": str(folder / "askpass")} | _only_first_redirects(url), options


def _only_first_redirects(url: str) -> dict[str, str]:
    """Return the environment in which git follows redirects of its first request only, whatever the machine configures.

    With `http.followRedirects=true`, git's dumb HTTP protocol also fetches from other servers that the first one lists
    as alternates, and sends them the credentials without a prompt. A full URL is more specific than any other section.
    """
    keys = ("http.followRedirects", f"http.{url}.followRedirects")
    pairs = [pair for n, key in enumerate(keys) for pair in ((f"KEY_{n}", key), (f"VALUE_{n}", "initial"))]
    return {f"GIT_CONFIG_{name}": value for name, value in [("COUNT", str(len(keys))), *pairs]}


def _password_configuration(url: str, username: str) -> str:
    """Return configuration that overrides the user name and extra headers that the user has configured for this URL.

    The most specific section wins: that of the URL itself or, after a redirect on the same server, the host's.
    """
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    places = (f"{scheme}://{host}", url)
    names = (f'[credential "{quoted(each)}"]\n\tusername = "{quoted(username)}"\n' for each in places)
    headers = (f'[http "{quoted(each)}"]\n\textraHeader =\n' for each in places)
    return "".join((*names, *headers))


def accepts(url: str, credentials: GitCredentials) -> bool:
    """Whether the credentials can be used for a URL: it needs none, or their kind fits and it contains no password."""
    origin = origin_of(url)
    if origin is None or origin.scheme == "git":
        return True
    if origin.scheme == "ssh":
        return credentials.ssh_key is not None
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return credentials.password is not None and ":" not in user


def _askpass(folder: Path, scheme: str, host: str, usernames: Collection[str]) -> str:
    """Return a script that answers git's prompts for one server, compared in full, and fails for all others.

    Source: git's credential.c. Its newer releases encode the user and the host in a prompt.
    """
    places = [f"{scheme}://{each}" for each in url_variants(scheme, host)]
    users = sorted({each for name in usernames for each in (name, quote(name, safe=""))})
    named = [f"{scheme}://{user}@{each}" for user in users for each in url_variants(scheme, host)]
    return "\n".join(
        (
            "#!/bin/sh",
            'case "$1" in',
            f"{_prompts('Username', places)}) exec cat {shlex.quote(str(folder / 'username'))} ;;",
            f"{_prompts('Password', named)}) exec cat {shlex.quote(str(folder / 'password'))} ;;",
            "esac",
            "exit 1\n",
        )
    )


def _credential_helper(folder: Path, scheme: str, host: str) -> str:
    """Return a credential helper that knows one server, compared in full. Source: git's gitcredentials(7)."""
    places = " | ".join(shlex.quote(f"{scheme}://{each}") for each in url_variants(scheme, host))
    username, password = (shlex.quote(str(folder / name)) for name in ("username", "password"))
    return "\n".join(
        (
            "#!/bin/sh",
            '[ "$1" = get ] || exit 0',
            "while read -r line; do",
            '  case "$line" in protocol=*) scheme=${line#protocol=} ;; host=*) host=${line#host=} ;; esac',
            "done",
            'case "$scheme://$host" in',
            f'{places}) echo "username=$(cat {username})"; echo "password=$(cat {password})" ;;',
            "esac\n",
        )
    )


def _helper_options(folder: Path, origin: Origin) -> tuple[str, ...]:
    host = origin.host if origin.port == DEFAULT_PORTS[origin.scheme] else f"{origin.host}:{origin.port}"
    command = f"!{shlex.quote(str(folder / 'helper'))}"
    return ("-c", f"credential.{origin.scheme}://{host}.helper={command}")


def _prompts(what: str, places: Iterable[str]) -> str:
    return " | ".join(shlex.quote(f"{what} for '{place}': ") for place in places)


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
