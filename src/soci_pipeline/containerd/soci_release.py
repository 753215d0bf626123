"""Download a release of soci for workers without it, verify it, and cache it for later runs.

The sha256 of the archive is verified before its content is read, and only the program is extracted.
"""

import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput, ToolMissing
from soci_pipeline.file_download import NotFetched, check_address, fetch
from soci_pipeline.full_disk import full_disk_reported
from soci_pipeline.log import logger
from soci_pipeline.oci.platform import Platform
from soci_pipeline.urls import redacted

DEFAULT_BASE_URL = "https://github.com/awslabs/soci-snapshotter/releases/download"
MAX_ARCHIVE_BYTES = 512 << 20
MAX_PROGRAM_BYTES = 512 << 20
_PROGRAM = "soci"
_CHUNK = 1 << 20
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.]+)?)\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def release_address(version: str, platform: Platform, *, base_url: str = DEFAULT_BASE_URL) -> str:
    """Return the URL of a release: ``BASE/vVERSION/soci-snapshotter-VERSION-linux-ARCH.tar.gz``.

    Raises `InvalidInput` for an invalid version or URL, or a platform other than Linux.
    """
    match = _VERSION.match(version)
    if match is None:
        raise InvalidInput(f"not a soci version: {version[:50]!r}", advice="Use the form 0.15.0.")
    if platform.os != "linux":
        raise InvalidInput(f"soci is released only for linux, not for {platform}")
    check_address(base_url)
    plain = match[1]
    name = f"soci-snapshotter-{plain}-linux-{platform.normalised().architecture}.tar.gz"
    return f"{base_url.rstrip('/')}/v{plain}/{name}"


def ensure_soci(
    version: str, *, sha256: str, cache: Path, platform: Platform | None = None, base_url: str | None = None
) -> Path:
    """Return the program `soci` of a release, downloading it into ``cache``, which several processes may share.

    ``sha256`` is that of the archive, in hex. Raises `ToolMissing` if the download fails, `DamagedContent` if the
    archive does not match or cannot be read, and `HostileArchive` if the program in it is too large or not a regular
    file.
    """
    if not _SHA256.match(sha256):
        raise InvalidInput("the SHA-256 of the soci release must be 64 lower-case hex digits")
    address = release_address(version, platform or Platform.native(), base_url=base_url or DEFAULT_BASE_URL)
    # The sha256 is the cache key, so that a different archive of the same version is not used.
    program = cache / f"soci-{sha256}" / _PROGRAM
    if program.is_file() and os.access(program, os.X_OK):
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with (
        full_disk_reported(cache),
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=program.parent) as folder,
    ):
        archive = Path(folder) / "release.tar.gz"
        _fetch(address, archive, sha256)
        made = _unpack(archive, Path(folder) / _PROGRAM)
        made.replace(program)
    return program


def environment_with_soci(
    env: Mapping[str, str], *, version: str | None, sha256: str | None, cache: Path, base_url: str | None = None
) -> dict[str, str]:
    """Return the environment with `soci` on the PATH, adding the release of ``version`` if `soci` is missing.

    Without a version or a sha256 the environment is returned unchanged, and `find_soci` reports the missing program.
    """
    if shutil.which(_PROGRAM, path=env.get("PATH", os.defpath)) or not version or not sha256:
        return dict(env)
    program = ensure_soci(version, sha256=sha256, cache=cache, base_url=base_url)
    return {**env, "PATH": os.pathsep.join([str(program.parent), env.get("PATH", os.defpath)])}


def _fetch(address: str, target: Path, sha256: str) -> None:
    logger().info("fetching soci from %s", redacted(address))
    try:
        fetch(address, target, limit=MAX_ARCHIVE_BYTES, sha256=sha256)
    except NotFetched as error:
        raise ToolMissing(
            f"soci is missing: {error.reason}",
            advice="Check the version, the base URL and the network, or install the package soci-snapshotter.",
            temporary=error.temporary,
        ) from error


def _unpack(archive: Path, target: Path) -> Path:
    """Extract only the program `soci`; ignore everything else in the archive."""
    try:
        with tarfile.open(archive, "r:gz") as source:
            for member in source:
                if member.name.removeprefix("./") != _PROGRAM:
                    continue
                content = source.extractfile(member) if member.isreg() else None
                if content is None or member.size > MAX_PROGRAM_BYTES:
                    raise HostileArchive("`soci` in the release's archive is not a regular file of a plausible size")
                with target.open("wb") as file:
                    while chunk := content.read(_CHUNK):
                        file.write(chunk)
                target.chmod(0o755)
                return target
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DamagedContent(f"the archive of the soci release cannot be read: {error}") from error
    raise DamagedContent("the archive of the soci release does not contain the program `soci`")
