"""Resource limits for indexing a layer, since layers are untrusted input."""

from dataclasses import dataclass

SPECIAL_ENTRY_BYTES = 1 << 20
"""Limit for the PAX records or a GNU long name of one entry, as in Go's archive/tar, which container runtimes use."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in bytes; a layer that exceeds one raises `soci_pipeline.errors.HostileArchive`.

    ``uncompressed`` limits the time that a decompression bomb can take (memory use is constant in any case). ``ztoc``
    limits memory: the table of contents and 32 KiB for each checkpoint; a crafted gzip stream can require a checkpoint
    every five bytes. A zTOC may still be larger than its layer, since headers of empty files compress 1000:1.
    """

    uncompressed: int = 256 << 30
    ztoc: int = 512 << 20


DEFAULT_LIMITS = Limits()
