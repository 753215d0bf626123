"""The conformance suite's category "Pull", case by case."""

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_MANIFEST
from tests.support.wire import API, LAYER, NAME, code_of, manifest_of, put_blob, put_document, put_image

NOWHERE = Digest.of(b"nowhere")


@pytest.fixture
def image(http: httpx.Client) -> Descriptor:
    return put_image(http, "v1")


def test_the_base_address_says_that_the_api_is_there(http: httpx.Client) -> None:
    answer = http.get("/v2/")
    assert (answer.status_code, answer.headers["docker-distribution-api-version"]) == (200, "registry/2.0")
    assert http.get("/v2").status_code == 200


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_request_for_a_blob_that_is_not_there_yields_404(http: httpx.Client, image: Descriptor, method: str) -> None:
    answer = http.request(method, f"{API}/blobs/{NOWHERE}")
    assert answer.status_code == 404
    if method == "GET":
        assert code_of(answer) == "BLOB_UNKNOWN"


def test_head_of_a_blob_yields_its_length_and_digest(http: httpx.Client, image: Descriptor) -> None:
    answer = http.head(f"{API}/blobs/{Digest.of(LAYER)}")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(LAYER))
    assert answer.headers["docker-content-digest"] == Digest.of(LAYER)


def test_get_of_a_blob_yields_its_bytes(http: httpx.Client, image: Descriptor) -> None:
    assert http.get(f"{API}/blobs/{Digest.of(LAYER)}").content == LAYER


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ("bytes=2-5", 2, 6),
        ("bytes=30-", 30, len(LAYER)),
        ("bytes=-4", len(LAYER) - 4, len(LAYER)),
        ("bytes=5-999", 5, 38),
    ],
)
def test_a_range_of_a_blob_yields_206(http: httpx.Client, image: Descriptor, given: str, start: int, end: int) -> None:
    answer = http.get(f"{API}/blobs/{Digest.of(LAYER)}", headers={"Range": given})
    assert (answer.status_code, answer.content) == (206, LAYER[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(LAYER)}"


@pytest.mark.parametrize("given", ["bytes=38-", "bytes=900-901", "bytes=5-3", "bytes=-0"])
def test_a_range_outside_a_blob_yields_416(http: httpx.Client, image: Descriptor, given: str) -> None:
    answer = http.get(f"{API}/blobs/{Digest.of(LAYER)}", headers={"Range": given})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(LAYER)}")


@pytest.mark.parametrize("given", ["lines=1-2", "bytes=1-2,4-5", "bytes=-"])
def test_a_range_of_another_sort_is_ignored(http: httpx.Client, image: Descriptor, given: str) -> None:
    answer = http.get(f"{API}/blobs/{Digest.of(LAYER)}", headers={"Range": given})
    assert (answer.status_code, answer.content) == (200, LAYER)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("reference", ["nothing", NOWHERE])
def test_a_request_for_a_manifest_that_is_not_there_yields_404(
    http: httpx.Client, image: Descriptor, method: str, reference: str
) -> None:
    answer = http.request(method, f"{API}/manifests/{reference}")
    assert answer.status_code == 404
    if method == "GET":
        assert code_of(answer) == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("by_tag", [True, False])
def test_head_and_get_of_a_manifest_agree_by_tag_and_by_digest(
    http: httpx.Client, image: Descriptor, by_tag: bool
) -> None:
    address = f"{API}/manifests/{'v1' if by_tag else image.digest}"
    head, get = http.head(address), http.get(address)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-length"] == str(len(get.content)) == str(image.size)
    assert head.headers["docker-content-digest"] == get.headers["docker-content-digest"] == image.digest
    assert head.headers["content-type"] == get.headers["content-type"] == OCI_MANIFEST
    assert Digest.of(get.content) == image.digest


def test_a_blob_is_not_served_as_a_manifest(http: httpx.Client, image: Descriptor) -> None:
    assert http.get(f"{API}/manifests/{Digest.of(LAYER)}").status_code == 404


def test_an_error_has_a_code_and_a_message_in_json(http: httpx.Client) -> None:
    answer = http.get(f"{API}/blobs/sha256:short")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("name", ["UPPER", "a..b", "a/", "-a", "a" * 300])
def test_what_is_no_repository_name_is_refused(http: httpx.Client, name: str) -> None:
    address = httpx.URL(str(http.base_url)).copy_with(raw_path=f"/v2/{name}/manifests/t".encode())
    answer = http.get(address)
    assert answer.status_code in (400, 404)
    assert code_of(answer) in ("NAME_INVALID", "NAME_UNKNOWN")


def test_a_repository_may_lie_below_another_one(http: httpx.Client) -> None:
    for name in ("a", "a/blobs", "a/blobs/uploads/b", "a/b"):
        put_image(http, "t", name)
        assert http.get(f"/v2/{name}/manifests/t").status_code == 200
    assert http.get("/v2/_catalog").json() == {"repositories": ["a", "a/b", "a/blobs", "a/blobs/uploads/b"]}


def link_outside(place: Path) -> None:
    place.symlink_to(place.rename(place.parents[3] / f"outside-{place.name}"))


def link_to_nothing(place: Path) -> None:
    place.unlink()
    place.symlink_to("nowhere")


def folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("other", [link_outside, link_to_nothing, folder, pipe])
def test_what_takes_the_place_of_a_blob_is_not_served_and_gives_way_to_the_next_push(
    http: httpx.Client, tmp_path: Path, image: Descriptor, other: Callable[[Path], None]
) -> None:
    for digest in (Digest.of(LAYER), image.digest):
        other(tmp_path / NAME.replace("/", "+") / "blobs" / "sha256" / digest.hex)
    for method in ("GET", "HEAD"):
        assert http.request(method, f"{API}/blobs/{Digest.of(LAYER)}").status_code == 404
    answer = http.get(f"{API}/manifests/v1")
    assert (answer.status_code, code_of(answer)) == (404, "MANIFEST_UNKNOWN")
    assert http.get(f"{API}/referrers/{image.digest}").status_code == 200
    mount = {"mount": Digest.of(LAYER), "from": NAME}
    assert http.post("/v2/other/blobs/uploads/", params=mount).status_code == 202
    assert code_of(put_document(http, manifest_of(LAYER))) == "MANIFEST_BLOB_UNKNOWN"
    if other is not folder:
        put_blob(http, LAYER)
        assert put_document(http, manifest_of(LAYER), "v1").status_code == 201
        assert http.get(f"{API}/blobs/{Digest.of(LAYER)}").content == LAYER
        assert http.get(f"{API}/manifests/v1").content == manifest_of(LAYER).encode()
    assert len(list(tmp_path.glob("outside-*"))) == (2 if other is link_outside else 0)


def test_a_manifest_that_the_disk_has_damaged_is_written_again_by_the_next_push(
    http: httpx.Client, tmp_path: Path, image: Descriptor
) -> None:
    stored = tmp_path / NAME.replace("/", "+") / "blobs" / "sha256" / image.digest.hex
    stored.chmod(0o644)
    stored.write_bytes(b"\0" * image.size)
    assert put_document(http, manifest_of(LAYER), "v1").status_code == 201
    assert http.get(f"{API}/manifests/v1").content == manifest_of(LAYER).encode()
