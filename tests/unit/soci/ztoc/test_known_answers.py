"""The known answers of the reference indexer, soci v0.15.0 with ``TZ=UTC``: digest for digest, byte for byte.

``tests/data/vectors`` holds its answers and the inputs; an input that is another one's plain or damaged form is made
here.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import DamagedContent, LayerNotIndexable
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.ztoc.build import build_ztoc

VECTORS = Path(__file__).resolve().parents[3] / "data" / "vectors"
REFERENCE_TOOL = "AWS SOCI CLI v0.2"
LAYERS: dict[str, dict[str, Any]] = {
    record["file"]: record for record in json.loads((VECTORS / "layers.json").read_text())
}
CASES: dict[str, dict[str, Any]] = {
    record["case"]: record for record in json.loads((VECTORS / "convert.json").read_text())
}
REASONS = {"mix.tar.zst": "zstd", "paxglobal-l6.tar.gz": "unsupported-entry"}


def _derived(name: str) -> bytes | None:
    mix = VECTORS / "layers" / "mix-l6.tar.gz"
    match name:
        case "mix.tar" | "mix-docker.tar":
            return gzip.decompress(mix.read_bytes())
        case "pax.tar":
            return gzip.decompress((VECTORS / "layers" / "pax-l6.tar.gz").read_bytes())
        case "mix-truncated.tar.gz":
            return mix.read_bytes()[:-5000]
        case "mix-badcrc.tar.gz":
            data = bytearray(mix.read_bytes())
            data[-8] ^= 1
            return bytes(data)
        case _:
            return None


@pytest.fixture(params=sorted(LAYERS))
def layer(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A layer's file and its record; the file is the one that the reference was given."""
    record = LAYERS[request.param]
    made = _derived(request.param)
    path = VECTORS / "layers" / request.param
    if made is not None:
        path = tmp_path / request.param
        path.write_bytes(made)
    assert Digest.of(path.read_bytes()).hex == record["sha256"]
    return path, record


def test_a_layer_gets_the_reference_s_ztoc_or_is_refused_where_it_refuses(layer: tuple[Path, dict[str, Any]]) -> None:
    path, record = layer
    if record["reference"] == "ok":
        for span_size, answer in record["ztoc_by_span_size"].items():
            built = build_ztoc(path, record["media_type"], span_size=int(span_size), build_tool=REFERENCE_TOOL)
            assert (built.digest.hex, built.size) == (answer["sha256"], answer["size"]), f"span size {span_size}"
        return
    with pytest.raises((LayerNotIndexable, DamagedContent)) as caught:
        build_ztoc(path, record["media_type"], span_size=65536, build_tool=REFERENCE_TOOL)
    if isinstance(caught.value, LayerNotIndexable):
        assert caught.value.code == REASONS[record["file"]]
    else:
        assert record["sha256"] in caught.value.reason


def test_the_time_zone_does_not_show_in_a_ztoc(monkeypatch: pytest.MonkeyPatch) -> None:
    record = LAYERS["pax-l6.tar.gz"]
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    built = build_ztoc(
        VECTORS / "layers" / "pax-l6.tar.gz", record["media_type"], span_size=65536, build_tool=REFERENCE_TOOL
    )
    assert built.digest.hex == record["ztoc_by_span_size"]["65536"]["sha256"]


def _convert(case: str, destination: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    record = CASES[case]
    arguments = [str(VECTORS / record["image"]), str(destination), *record["convert_arguments"].split()]
    assert main(["convert", *arguments, "--build-tool", REFERENCE_TOOL, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()


@pytest.mark.parametrize("case", ["docker", "docker-xattr", "docker-prefetch"])
def test_a_converted_image_is_the_reference_s_to_the_byte(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = _convert(case, tmp_path / "out", capsys)
    assert answer["index"] == CASES[case]["image_index_digest"]
    assert [root["digest"] for root in json.loads((tmp_path / "out" / "index.json").read_text())["manifests"]] == [
        answer["index"]
    ]
    for expected in (VECTORS / "convert" / case).glob("*.json"):
        assert _blob(tmp_path / "out", Digest.of(expected.read_bytes())) == expected.read_bytes()


@pytest.mark.parametrize("case", ["multi-allplatforms", "multi-arm64"])
def test_images_and_soci_indexes_beside_attestations_are_the_reference_s(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attestations follow a rule of our own, and with them the digest of the image index."""
    answer = _convert(case, tmp_path / "out", capsys)
    reference = json.loads((VECTORS / "convert" / case / "image-index.json").read_text())
    ours = json.loads(_blob(tmp_path / "out", answer["index"]))
    assert _images(ours) == _images(reference)
    assert _soci_indexes(ours) == _soci_indexes(reference)
    assert _soci_indexes(ours)
    for descriptor in _images(ours) + _soci_indexes(ours):
        assert Digest.of(_blob(tmp_path / "out", descriptor["digest"])) == descriptor["digest"]


def test_nothing_large_enough_leaves_the_image_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = _convert("docker-defaults-minlayer", tmp_path / "out", capsys)
    reasons = {layer["reason"] for image in answer["platforms"] for layer in image["layers"]}
    assert reasons == {"too-small"}
    assert [image["soci_index"] for image in answer["platforms"]] == [None]


def _images(index: dict[str, Any]) -> list[dict[str, Any]]:
    entries = [entry for entry in index["manifests"] if "artifactType" not in entry]
    return [entry for entry in entries if entry["platform"]["os"] != "unknown"]


def _soci_indexes(index: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in index["manifests"] if "soci.index" in entry.get("artifactType", "")]
