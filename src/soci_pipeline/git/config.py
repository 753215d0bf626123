"""Limit the machine's git configuration that has an effect to how a server is reached, and to the filters.

`OPTIONS` are passed to every command. `ISOLATED` is the environment of commands that only read or write local files: it
disables system and user configuration (git 2.32 or newer; with an older git only the options apply). Commands that
connect to a server do see that configuration, because they may need a proxy, certificates or `url.<base>.insteadOf`.
"""

from collections.abc import Mapping
from types import MappingProxyType

OPTIONS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.fsmonitor=false"),
    *("-c", "submodule.recurse=false", "-c", "advice.detachedHead=false"),
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
    # A work tree given by path may belong to a user other than the worker's.
    *("-c", "safe.directory=*", "-c", "safe.bareRepository=all"),
    # The bytes of a checkout.
    *("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false", "-c", "core.symlinks=true"),
    *("-c", "core.attributesFile=/dev/null", "-c", "core.sparseCheckout=false", "-c", "core.ignoreCase=false"),
    # The output of commands.
    *("-c", "log.showSignature=false", "-c", "color.ui=false"),
    # What a fetch accepts. A fetch must not contact any other server.
    *("-c", "fetch.fsckObjects=false", "-c", "transfer.fsckObjects=false", "-c", "fetch.prune=false"),
    *("-c", "transfer.bundleURI=false", "-c", "fetch.uriProtocols="),
)
"""Options for every command: with them, a commit gives the same result whatever the user has configured."""

ISOLATED: Mapping[str, str] = MappingProxyType(
    {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1"}
)
"""Variables that make git read only the repository's own configuration and that given as options."""

ANY_OWNER = "[safe]\n\tdirectory = *\n"
"""User configuration that allows repositories of other users; `git upload-pack` has no option for it."""

_LFS = "filter.lfs."
_LFS_COMMANDS = frozenset({"git-lfs clean -- %f", "git-lfs smudge -- %f", "git-lfs filter-process", "true"})
_OWN_SCOPES = frozenset({"local", "worktree"})
_SHA256_DIGITS = 64


def init_options(commit: str) -> tuple[str, ...]:
    """Return options for ``git init``: no user template, and object names as long as that of the commit."""
    # Passed only if needed: git before 2.29 lacks the option and supports only SHA-1.
    form = ("--object-format=sha256",) if len(commit) == _SHA256_DIGITS else ()
    return ("--template=", *form)


def filters(listing: str) -> str:
    """Return the filters that ``git config -z --get-regexp`` lists as a configuration file, without that of Git LFS."""
    return "".join(_entry(entry) for entry in listing.split("\0") if entry and not entry.startswith(_LFS))


def without_own_filters(listing: str) -> dict[str, str]:
    """Return variables that disable the filters in a repository's own configuration: each filter is a command.

    ``listing`` is what ``git config -z --show-scope --get-regexp`` prints for ``filter`` and ``lfs.extension``. Git LFS
    as configured by `git lfs install --local` is kept unless the repository adds extensions, which are commands too.
    """
    words = listing.split("\0")
    own = [entry for scope, entry in zip(words[::2], words[1::2], strict=False) if scope in _OWN_SCOPES]
    is_extended = any(entry.startswith("lfs.extension.") for entry in own)
    names = {
        _filter_name(entry) for entry in own if entry.startswith("filter.") and (is_extended or not _is_lfs(entry))
    }
    names |= {"lfs"} if is_extended else set()
    values = {"clean": "", "smudge": "", "process": "", "required": "false"}
    pairs = [(f"filter.{name}.{key}", value) for name in sorted(names) for key, value in values.items()]
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables if pairs else {}


def _filter_name(entry: str) -> str:
    return entry.partition("\n")[0].partition(".")[2].rpartition(".")[0]


def _is_lfs(entry: str) -> bool:
    return entry.startswith(_LFS) and entry.partition("\n")[2] in _LFS_COMMANDS


def _entry(entry: str) -> str:
    name, has_value, value = entry.partition("\n")
    section, _, rest = name.partition(".")
    subsection, _, variable = rest.rpartition(".")
    # A variable without `=` is true; one with an empty value is false.
    assigned = f' = "{quoted(value)}"' if has_value else ""
    return f'[{section} "{quoted(subsection)}"]\n\t{variable}{assigned}\n'


def quoted(text: str) -> str:
    """Escape a string for use between quotes in a configuration file."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
