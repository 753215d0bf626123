"""Tar archives and gzip streams created in code: the same bytes on every machine and in every time zone."""

import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

EPOCH = 1_700_000_000


@dataclass(frozen=True)
class Entry:
    """One tar entry; ``kind`` is a tarfile type such as ``tarfile.SYMTYPE``."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    uname: str = "root"
    gname: str = "root"
    mtime: float = EPOCH
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


def directory(name: str, *, mode: int = 0o755) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, link=target)


def tar(entries: Iterable[Entry], *, dialect: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive of some entries with its trailer, padded to 10 KiB as by tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
        for entry in entries:
            archive.addfile(_info(entry), io.BytesIO(entry.data))
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of regular files by name."""
    return tar(Entry(name, data) for name, data in files.items())


# Hundreds of tests create the same few layers.
@lru_cache(maxsize=64)
def gzipped(data: bytes, *, level: int = 6) -> bytes:
    """Return one gzip member with an empty header."""
    return gzip.compress(data, level, mtime=0)


def gzip_members(pieces: Sequence[bytes], *, level: int = 6) -> bytes:
    """Return several concatenated gzip members."""
    return b"".join(gzipped(piece, level=level) for piece in pieces)


def noise(size: int, *, seed: int = 0) -> bytes:
    """Return incompressible bytes."""
    return random.Random(seed).randbytes(size)


@lru_cache(maxsize=64)
def text(size: int, *, seed: int = 0) -> bytes:
    """Return bytes that compress about as well as program text."""
    words = [f"{zlib.crc32(f'{seed}.{number}'.encode()):x}" for number in range(500)]
    chosen = random.Random(seed).choices(words, k=size // 8 + 1)
    return " ".join(chosen).encode()[:size].ljust(size, b".")


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.name)
    info.type = entry.kind
    info.size = len(entry.data)
    info.linkname = entry.link
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.uname, info.gname, info.mtime = entry.uname, entry.gname, entry.mtime
    info.devmajor, info.devminor = entry.device
    info.pax_headers = dict(entry.pax)
    return info
