"""Which of the machine's git configuration counts: how a server is reached, and the filters. Nothing else does.

`OPTIONS` go with every command. `ISOLATED` is the environment of a command that only reads or writes this machine's
disk: it sees no configuration of the system or of the user (git 2.32 or newer; with an older one the options alone
count). A command that talks to a server sees it, since a proxy, certificates or `url.<base>.insteadOf` may be needed.
"""

from collections.abc import Mapping
from types import MappingProxyType

OPTIONS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.fsmonitor=false"),
    *("-c", "submodule.recurse=false", "-c", "advice.detachedHead=false"),
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),
    # A work tree given by path may belong to another user than the worker's.
    *("-c", "safe.directory=*", "-c", "safe.bareRepository=all"),
    # The bytes of a checkout.
    *("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false", "-c", "core.symlinks=true"),
    *("-c", "core.attributesFile=/dev/null", "-c", "core.sparseCheckout=false", "-c", "core.ignoreCase=false"),
    # What commands print.
    *("-c", "log.showSignature=false", "-c", "color.ui=false"),
    # What a fetch accepts, and that it asks no other server.
    *("-c", "fetch.fsckObjects=false", "-c", "transfer.fsckObjects=false", "-c", "fetch.prune=false"),
    *("-c", "transfer.bundleURI=false", "-c", "fetch.uriProtocols="),
)
"""Options of every command: they make the same of a commit whatever the user's configuration says."""

ISOLATED: Mapping[str, str] = MappingProxyType(
    {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1"}
)
"""Variables under which git reads no configuration but the repository's own and that of its options."""

ANY_OWNER = "[safe]\n\tdirectory = *\n"
"""A user's configuration that allows repositories of other users: `git upload-pack` takes no options for that."""

_LFS = "filter.lfs."
_LFS_COMMANDS = frozenset({"git-lfs clean -- %f", "git-lfs smudge -- %f", "git-lfs filter-process", "true"})
_OWN_SCOPES = frozenset({"local", "worktree"})
_SHA256_DIGITS = 64


def init_options(commit: str) -> tuple[str, ...]:
    """Options of ``git init``: no template of the user, and object names as long as that of the commit."""
    # Named where it must be: git before 2.29 does not have the option, and makes no other than SHA-1.
    form = ("--object-format=sha256",) if len(commit) == _SHA256_DIGITS else ()
    return ("--template=", *form)


def filters(listing: str) -> str:
    """The filters that ``git config -z --get-regexp`` lists, as a configuration file; without that of Git LFS."""
    return "".join(_entry(entry) for entry in listing.split("\0") if entry and not entry.startswith(_LFS))


def without_own_filters(listing: str) -> dict[str, str]:
    """Variables that switch off the filters of a repository's own configuration: each is a command.

    ``listing`` is what ``git config -z --show-scope --get-regexp`` prints of ``filter`` and ``lfs.extension``. Git LFS
    as `git lfs install --local` writes it is kept, unless the repository gives it extensions, which are commands too.
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
    # A variable alone is true, one without a text is false.
    assigned = f' = "{quoted(value)}"' if has_value else ""
    return f'[{section} "{quoted(subsection)}"]\n\t{variable}{assigned}\n'


def quoted(text: str) -> str:
    """A text as it stands between quotes in a configuration file."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
