"""Debian packages created in code."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


class Linked(str):
    """The target of a hard link."""

    __slots__ = ()


def write_deb(path: Path, files: Mapping[str, bytes | str], *, moment: int = 1_700_000_000) -> Path:
    """Write a package with regular files (bytes), symbolic links (str: the target) and hard links (`Linked`)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(f"./{name}")
            header.mtime = moment
            if isinstance(content, str):
                header.type = tarfile.LNKTYPE if isinstance(content, Linked) else tarfile.SYMTYPE
                header.linkname = content
                archive.addfile(header)
            else:
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    path.write_bytes(b"!<arch>\n" + b"".join(_ar_member(name, body) for name, body in members.items()))
    return path


def _ar_member(name: str, body: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode()
    return header + body + b"\n" * (len(body) % 2)
