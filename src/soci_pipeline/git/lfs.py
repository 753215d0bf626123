"""Git LFS: fetch the contents that a checkout has pointers for, if git-lfs is installed.

Git's own filter is not used: it would run without credentials and fail. Instead, `git lfs fetch` runs once, signs in
only to the server of the source, and the fetched contents replace the pointers. If git-lfs is missing or the server
does not have the files, a warning names them, as for submodules. Source: git-lfs, docs/spec.md.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.errors import InvalidInput, SourceError
from soci_pipeline.git.address import check_url, origin_of
from soci_pipeline.git.program import Git
from soci_pipeline.log import logger

_POINTER = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n"
    rb"(?:ext-[^\n]*\n)*oid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>[0-9]{1,18})\n?\Z"
)
_POINTER_BYTES = 1024
_NAMED = 10
_FETCH_SECONDS = 6 * 3600.0
_ENDPOINTS = ("lfs.url", "remote.origin.lfsurl")
# git-lfs does not report the status of a failing server, and words network errors differently from git.
_TEMPORARY = ("server error", "i/o timeout", "handshake timeout", "rate limit", "unexpected eof")
_OPTIONS = ("-c", "lfs.skipdownloaderrors=false", "-c", "lfs.fetchrecentalways=false", "-c", "lfs.storage=lfs")


@dataclass(frozen=True, slots=True)
class _Pointer:
    oid: str
    size: int

    def content(self, data: Path) -> Path:
        """Return where git-lfs stores the content, below the folder of a repository."""
        return data / "lfs/objects" / self.oid[:2] / self.oid[2:4] / self.oid


def fill_in(git: Git, data: Path, tree: Path, url: str, commit: str) -> None:
    """Replace the pointers in ``tree`` with the contents; ``data`` is the repository that has the commit.

    A warning names what cannot be replaced. Raises `SourceError` if a retry may succeed.
    """
    pointers = dict(_pointers(tree))
    if not pointers:
        return
    reason = _fetch(git, data, tree, url, commit)
    missing = _replace(pointers, data)
    if missing:
        names = ", ".join(str(path.relative_to(tree)) for path in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        logger().warning(
            "the source has Git LFS files that were not fetched, so the build gets their pointers: %s%s (%s)",
            names,
            more,
            reason or "the server does not have them",
        )


def _pointers(tree: Path) -> Iterator[tuple[Path, _Pointer]]:
    paths = (Path(parent) / name for parent, _, names in os.walk(tree) for name in names)
    for path in sorted(paths):
        if path.is_symlink() or path.stat().st_size > _POINTER_BYTES:
            continue
        found = _POINTER.match(path.read_bytes())
        if found is not None:
            yield path, _Pointer(found["oid"].decode(), int(found["size"]))


def _fetch(git: Git, data: Path, tree: Path, url: str, commit: str) -> str | None:
    """Fetch the contents; return None, or the reason if they could not be fetched. Raises temporary errors."""
    if not git.succeeds("lfs", "version"):
        return "git-lfs is not installed on this worker"
    if url.startswith("git://"):
        return "the git protocol does not support Git LFS: use https or ssh"
    refused = _refused_endpoint(git, tree, url)
    if refused is not None:
        return refused
    git.run_here("-C", str(data), "config", "remote.origin.url", url)
    try:
        git.run_lfs(
            "-C", str(data), *_OPTIONS, "lfs", "fetch", "-I", "", "-X", "", "origin", commit, timeout=_FETCH_SECONDS
        )
    except SourceError as error:
        if error.temporary or any(mark in error.reason.lower() for mark in _TEMPORARY):
            raise SourceError(
                f"cannot fetch the Git LFS files\n{error.reason}", advice=error.advice, temporary=True
            ) from error
        return error.reason
    return None


def _refused_endpoint(git: Git, tree: Path, url: str) -> str | None:
    """Return why the server in the commit's own ``.lfsconfig`` is not used, or None.

    Over http(s) it may be any server, which receives no credentials; over ssh it must be the server of the source.
    """
    file = tree / ".lfsconfig"
    if file.is_symlink() or not file.is_file():
        return None
    for key in _ENDPOINTS:
        try:
            named = git.run_here("config", "--file", str(file), "--get", key).strip()
        except SourceError:
            continue
        try:
            origin = origin_of(check_url(named))
        except InvalidInput as error:
            return f"{key} of .lfsconfig: {error.reason}"
        if origin is None or (origin.scheme not in ("http", "https") and origin != origin_of(url)):
            return f"{key} of .lfsconfig names a different server from the source: {named[:200]!r}"
    return None


def _replace(pointers: Mapping[Path, _Pointer], data: Path) -> Sequence[Path]:
    """Replace pointers with their contents; return the paths whose contents are missing."""
    uses = Counter(pointers.values())
    missing = []
    for path, pointer in pointers.items():
        content = pointer.content(data)
        if not content.is_file() or content.stat().st_size != pointer.size:
            missing.append(path)
            continue
        mode = path.stat().st_mode
        uses[pointer] -= 1
        if uses[pointer]:
            shutil.copyfile(content, path)
        else:
            # Avoid a second copy of what may be a large file.
            content.replace(path)
        path.chmod(mode & 0o777)
    return missing
