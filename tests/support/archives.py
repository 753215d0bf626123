"""Image archives created in code: valid and hostile OCI and Docker archives as tars."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from tests.support.images import AMD64
from tests.support.tars import EPOCH, Entry, tar, tar_of


def layout_files(layout: Layout) -> dict[str, bytes]:
    """Return the files of a layout by their names in an archive."""
    paths = [path for path in sorted(layout.path.rglob("*")) if path.is_file()]
    return {path.relative_to(layout.path).as_posix(): path.read_bytes() for path in paths}


def oci_archive(path: Path, layout: Layout, *, changed: Mapping[str, bytes | None] | None = None) -> Path:
    """Write the tar of a layout; ``changed`` replaces files, and omits those that are None."""
    files: dict[str, bytes | None] = {**layout_files(layout), **(changed or {})}
    path.write_bytes(tar_of({name: data for name, data in files.items() if data is not None}))
    return path


def docker_archive(
    path: Path, images: Sequence[tuple[Platform, Sequence[bytes]]], *, extra: Iterable[Entry] = ()
) -> Path:
    """Write an archive as `docker save` did before release 25: ``manifest.json``, configs, and plain layer tars."""
    entries: dict[str, Entry] = {}
    listing = []
    for number, (platform, layers) in enumerate(images):
        names = []
        for layer in layers:
            name = f"{Digest.of(layer).hex}/layer.tar"
            entries[name] = Entry(name, layer)
            names.append(name)
        config = json.dumps(image_config(platform, [Digest.of(layer) for layer in layers])).encode()
        config_name = f"{Digest.of(config).hex}.json"
        entries[config_name] = Entry(config_name, config)
        listing.append({"Config": config_name, "RepoTags": [f"test:{number}"], "Layers": names})
    entries["manifest.json"] = Entry("manifest.json", json.dumps(listing).encode())
    path.write_bytes(tar([*entries.values(), *extra]))
    return path


def image_config(platform: Platform, diff_ids: Sequence[Digest]) -> dict[str, object]:
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(each) for each in diff_ids]},
    }


def raw_tar(entries: Sequence[tuple[str, bytes, bytes, str]]) -> bytes:
    """Return a tar of (name, type, data, link) with unmodified names, including hostile ones."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, data, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mtime = kind, len(data), link, EPOCH
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def everything_below(folder: Path) -> set[str]:
    """Return every path below a folder, to show that nothing was written outside the destination."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


__all__ = ["AMD64", "docker_archive", "everything_below", "image_config", "layout_files", "oci_archive", "raw_tar"]
