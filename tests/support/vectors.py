"""The reference's known answers, put together from `tests/data/soci`."""

import gzip
import json
import shlex
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import parse_image_index

FOLDER = Path(__file__).parent.parent / "data" / "soci"
REFERENCE_TOOL = "AWS SOCI CLI v0.2"

_STORED = {
    "mix-l1.tar.gz": "84b324ac6156138f40f58f3b904bafc30e02ff825479cefb284eedd1fb0987d1",
    "mix-l6.tar.gz": "5628250382db76fc040c8347cf5acceb3b5bd46c5e786bb49c788faf94207f84",
    "mix-multi.tar.gz": "b8459a96d60eb316e126d5700a70f265cabe52fbf223f29fae35da992290aefc",
    "pax-l6.tar.gz": "c552119d6471e3a0a739b8e1a027a997d4ad41cacb31f54a5cca86afeba3052c",
    "gnu-l6.tar.gz": "36e470df1981d536e2e87ede845cd879fa690bbb7435e6e901e551eb05f71919",
    "tiny.tar": "27faf12049ccf391da80c8191d85b1bdac75faa311abdf862ecaac571091a6b1",
    "emptytar-l6.tar.gz": "7989bb311baa38ef545250282aa065d23281c46dfb8faabe4c653487bdbded5c",
    "paxglobal-l6.tar.gz": "5f85d4d4788079765c86085ab9ce6fada3fbab52eabe760e57271a725aa421f8",
}


@dataclass(frozen=True)
class LayerVector:
    """One layer and, by span size, the digest of the zTOC that the reference writes."""

    name: str
    media_type: str
    digest: str
    outcome: str
    ztocs: dict[int, str]

    @property
    def data(self) -> bytes:
        return layer_bytes(self.name)


@dataclass(frozen=True)
class ConvertVector:
    """One call of `soci convert`; ``documents`` are the exact manifests by file name."""

    name: str
    image: str
    arguments: list[str]
    index_digest: str | None
    documents: dict[str, bytes]


def layer_vectors() -> list[LayerVector]:
    records: list[dict[str, Any]] = json.loads((FOLDER / "layers.json").read_bytes())
    return [
        LayerVector(
            name=record["file"],
            media_type=record["media_type"],
            digest=f"sha256:{record['sha256']}",
            outcome=record["reference"],
            ztocs={int(span): f"sha256:{ztoc['sha256']}" for span, ztoc in record["ztoc_by_span_size"].items()},
        )
        for record in records
    ]


def convert_vectors() -> list[ConvertVector]:
    return [
        ConvertVector(
            name=record["case"],
            image=Path(record["image"]).stem,
            arguments=shlex.split(record["convert_arguments"]),
            index_digest=record.get("image_index_digest"),
            documents={
                path.name: path.read_bytes() for path in sorted((FOLDER / "convert").glob(f"{record['case']}/*"))
            },
        )
        for record in json.loads((FOLDER / "convert.json").read_bytes())
    ]


def layer_bytes(name: str) -> bytes:
    """The bytes of a layer by its name in `layers.json`."""
    base = (FOLDER / "blobs" / _STORED["mix-l6.tar.gz"]).read_bytes()
    match name:
        case "mix.tar" | "mix-docker.tar":
            return gzip.decompress(base)
        case "pax.tar":
            return gzip.decompress((FOLDER / "blobs" / _STORED["pax-l6.tar.gz"]).read_bytes())
        case "mix-hdr.tar.gz":
            return _full_header() + base[10:]
        case "mix-badcrc.tar.gz":
            return base[:-8] + bytes([base[-8] ^ 1]) + base[-7:]
        case "mix-truncated.tar.gz":
            return base[:-5000]
        case "padded-l6.tar.gz":
            return base[:408170] + (FOLDER / "padded-l6.tail").read_bytes()
        case "mix.tar.zst":
            return b"\x28\xb5\x2f\xfd"
        case _:
            pass
    return (FOLDER / "blobs" / _STORED[name]).read_bytes()


def source_layout(image: str, folder: Path) -> Layout:
    """One of the images, `docker` or `multi`, as a layout."""
    layout = Layout.create(folder)
    roots = json.loads((FOLDER / f"{image}.index.json").read_bytes())
    for blob in (FOLDER / "blobs").iterdir():
        (folder / "blobs" / "sha256" / blob.name).write_bytes(blob.read_bytes())
    layout.set_roots(parse_image_index(json.dumps(roots).encode()).manifests)
    return layout


def layout_archive(layout: Layout, path: Path) -> Path:
    """A layout as a tar, as builders write it."""
    with tarfile.open(path, "w") as archive:
        archive.add(layout.path, arcname=".", filter=lambda info: None if ".incoming" in info.name else info)
    return path


def _full_header() -> bytes:
    """A gzip header with every optional field: extra, name, comment and checksum (RFC 1952, section 2.3)."""
    extra = b"AB\x04\x00wxyz"
    header = b"\x1f\x8b\x08\x1e" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    header += b"layer.tar\0hello comment\0"
    return header + struct.pack("<H", zlib.crc32(header) & 0xFFFF)
