"""What a layer may ask of this machine. Layers come from other people: every bound here is a setting."""

from dataclasses import dataclass

SPECIAL_ENTRY_BYTES = 1 << 20
"""For PAX records or a GNU long name of one entry; Go's archive/tar, which all container runtimes use, has it too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in bytes; a layer that exceeds one raises `soci_pipeline.errors.HostileArchive`.

    ``uncompressed`` bounds a decompression bomb in time (memory is flat in any case). ``ztoc`` bounds what has to be
    kept in memory: the table of contents and 32 KiB for each checkpoint, of which a crafted gzip stream can demand one
    every five bytes. Below it a zTOC may be larger than its layer: headers of empty files compress a thousand times.
    """

    uncompressed: int = 256 << 30
    ztoc: int = 512 << 20


DEFAULT_LIMITS = Limits()
