"""The conformance suite's category "Push", case by case: blobs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.server import ServerSettings, storage
from tests.support.older_registry import OlderRegistry
from tests.support.registries import leftovers, noise
from tests.support.wire import (
    API,
    CONFIG,
    NAME,
    code_of,
    manifest_of,
    put_blob,
    start,
    wire,
)

DATA = noise(3 << 20)
DIGEST = Digest.of(DATA)


def chunks(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    for position in range(0, len(data), size):
        yield data[position : position + size]


def part(http: httpx.Client, location: str, data: bytes, first: int) -> httpx.Response:
    return http.patch(location, content=data, headers={"Content-Range": f"{first}-{first + len(data) - 1}"})


def stored(http: httpx.Client, digest: Digest = DIGEST, name: str = NAME) -> bytes | None:
    answer = http.get(f"/v2/{name}/blobs/{digest}")
    return answer.content if answer.status_code == 200 else None


# Blob upload, streamed


def test_a_streamed_patch_and_a_closing_put_store_a_blob(http: httpx.Client, tmp_path: Path) -> None:
    patched = http.patch(start(http), content=chunks(DATA))
    assert (patched.status_code, patched.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    closed = http.put(patched.headers["location"], params={"digest": DIGEST})
    assert (closed.status_code, closed.headers["docker-content-digest"]) == (201, DIGEST)
    assert http.get(closed.headers["location"]).content == DATA
    assert not leftovers(tmp_path)


# Blob upload, monolithic


def test_a_post_with_the_digest_and_the_bytes_stores_a_blob(http: httpx.Client) -> None:
    answer = http.post(f"{API}/blobs/uploads/", params={"digest": DIGEST}, content=DATA)
    assert answer.status_code == 201
    assert stored(http) == DATA


def test_a_post_and_a_put_with_all_bytes_store_a_blob(http: httpx.Client) -> None:
    assert stored(http) is None
    put_blob(http, DATA)
    assert stored(http) == DATA


def test_an_empty_blob_can_be_stored(http: httpx.Client) -> None:
    assert stored(http, put_blob(http, b"")) == b""


def test_a_blob_may_be_stored_again(http: httpx.Client) -> None:
    put_blob(http, DATA)
    put_blob(http, DATA)
    assert stored(http) == DATA


def test_bytes_that_hash_to_something_else_are_refused_and_not_kept(http: httpx.Client, tmp_path: Path) -> None:
    answer = http.put(start(http), params={"digest": DIGEST}, content=DATA[:-1])
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert stored(http) is None
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("digest", [None, "sha256:1", "md5:" + "0" * 32, "nonsense"])
def test_a_put_without_a_usable_digest_is_refused(http: httpx.Client, digest: str | None) -> None:
    answer = http.put(start(http), params={} if digest is None else {"digest": digest}, content=DATA)
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


# Blob upload, chunked


def test_parts_in_order_and_a_closing_put_store_a_blob(http: httpx.Client) -> None:
    location, half = start(http), len(DATA) // 2
    first = part(http, location, DATA[:half], 0)
    assert (first.status_code, first.headers["range"]) == (202, f"0-{half - 1}")
    second = part(http, first.headers["location"], DATA[half:], half)
    assert (second.status_code, second.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    assert http.put(second.headers["location"], params={"digest": DIGEST}).status_code == 201
    assert stored(http) == DATA


def test_the_last_part_may_come_with_the_put(http: httpx.Client) -> None:
    location = part(http, start(http), DATA[:1000], 0).headers["location"]
    headers = {"Content-Range": f"1000-{len(DATA) - 1}"}
    assert http.put(location, params={"digest": DIGEST}, content=DATA[1000:], headers=headers).status_code == 201
    assert stored(http) == DATA


def test_a_part_out_of_order_yields_416_with_the_place_to_go_on(http: httpx.Client) -> None:
    location = part(http, start(http), DATA[:1000], 0).headers["location"]
    for first in (0, 999, 1001, 5000):
        answer = part(http, location, DATA[first : first + 10], first)
        assert (answer.status_code, answer.headers["range"]) == (416, "0-999")
        assert answer.headers["location"] == location
    assert part(http, location, DATA[1000:], 1000).status_code == 202


def test_a_put_out_of_order_yields_416_too(http: httpx.Client) -> None:
    location = start(http)
    answer = http.put(location, params={"digest": DIGEST}, content=DATA, headers={"Content-Range": "5-10"})
    assert answer.status_code in (400, 416)
    assert stored(http) is None


@pytest.mark.parametrize(("text", "status"), [("abc", 400), ("0-", 400), ("0-5", 400), ("5-0", 400)])
def test_a_part_whose_range_is_not_its_length_is_refused(http: httpx.Client, text: str, status: int) -> None:
    answer = http.patch(start(http), content=b"0123", headers={"Content-Range": text})
    assert answer.status_code == status


def test_the_status_of_an_upload_yields_204_with_its_range_and_location(http: httpx.Client) -> None:
    location = part(http, start(http), DATA[:1000], 0).headers["location"]
    answer = http.get(location)
    assert (answer.status_code, answer.headers["range"], answer.headers["location"]) == (204, "0-999", location)


def test_an_upload_that_was_cancelled_is_gone(http: httpx.Client, tmp_path: Path) -> None:
    location = start(http)
    assert http.delete(location).status_code == 204
    assert not leftovers(tmp_path)
    for answer in (http.get(location), http.patch(location, content=b"x"), http.delete(location)):
        assert (answer.status_code, code_of(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("name", ["0" * 32, "..", "x"])
def test_an_upload_that_never_was_is_unknown(http: httpx.Client, name: str) -> None:
    put_blob(http, DATA)
    address = httpx.URL(str(http.base_url)).copy_with(raw_path=f"/v2/{NAME}/blobs/uploads/{name}".encode())
    assert http.patch(address, content=b"x").status_code in (404, 405)


def test_no_part_follows_one_below_the_announced_least_size(tmp_path: Path) -> None:
    with wire(tmp_path, middleware=OlderRegistry(least_part=1000).middleware) as http:
        answer = http.post(f"{API}/blobs/uploads/")
        assert answer.headers["oci-chunk-min-length"] == "1000"
        location = answer.headers["location"]
        assert part(http, location, DATA[:1000], 0).status_code == 202
        assert part(http, location, DATA[1000:1999], 1000).status_code == 202
        assert code_of(part(http, location, DATA[1999:], 1999)) == "SIZE_INVALID"
        digest = Digest.of(DATA[:1999])
        assert http.put(location, params={"digest": digest}).status_code == 201


def test_an_upload_goes_on_after_the_server_was_started_again(tmp_path: Path) -> None:
    with wire(tmp_path) as http:
        location = httpx.URL(part(http, start(http), DATA[:1000], 0).headers["location"]).path
    with wire(tmp_path) as http:
        assert http.get(location).headers["range"] == "0-999"
        location = part(http, location, DATA[1000:], 1000).headers["location"]
        assert http.put(location, params={"digest": DIGEST}).status_code == 201


# Cross-repository mount


def test_an_upload_that_was_abandoned_for_a_day_is_dropped_while_the_server_runs(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_REAP_SECONDS", 0.0)
    old, young = start(http), start(http)
    os.utime(tmp_path / "team+app" / ".uploads" / old.rpartition("/")[2], (time.time() - 90_000,) * 2)
    start(http)
    assert [http.get(location).status_code for location in (old, young)] == [404, 204]


def test_a_blob_is_mounted_from_another_repository(http: httpx.Client) -> None:
    put_blob(http, DATA, "other/app")
    answer = http.post(f"{API}/blobs/uploads/", params={"mount": DIGEST, "from": "other/app"})
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, DIGEST)
    assert stored(http) == DATA


def test_a_blob_is_mounted_from_any_repository_where_none_is_named(http: httpx.Client) -> None:
    put_blob(http, DATA, "other/app")
    answer = http.post(f"{API}/blobs/uploads/", params={"mount": DIGEST})
    assert answer.status_code == 201
    assert stored(http) == DATA


def test_without_automatic_mounts_a_mount_that_names_no_repository_opens_a_session(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(automatic_mount=False)) as http:
        for name in ("other/app", NAME):
            put_blob(http, DATA, name)
        answer = http.post(f"{API}/blobs/uploads/", params={"mount": DIGEST})
        assert (answer.status_code, "/blobs/uploads/" in answer.headers["location"]) == (202, True)


@pytest.mark.parametrize("source", ["other/app", "none/such", "", "../.."])
def test_a_mount_of_a_blob_that_is_not_there_opens_a_session(http: httpx.Client, source: str) -> None:
    put_blob(http, b"something else", "other/app")
    answer = http.post(f"{API}/blobs/uploads/", params={"mount": DIGEST, "from": source})
    assert answer.status_code == 202 if source != "../.." else answer.status_code == 400


# Digests of the other registered algorithm


def test_blobs_and_manifests_may_have_sha512_digests(http: httpx.Client, tmp_path: Path) -> None:
    config = Digest.of(CONFIG, "sha512")
    location = http.patch(start(http), content=CONFIG).headers["location"]
    assert http.put(location, params={"digest": config}).status_code == 201
    assert stored(http, config) == CONFIG
    manifest = manifest_of()
    manifest = manifest.replaced(config=manifest.config.annotated(digest=config))
    digest = Digest.of(manifest.encode(), "sha512")
    headers = {"Content-Type": manifest.media_type}
    pushed = http.put(f"{API}/manifests/{digest}", content=manifest.encode(), headers=headers)
    assert (pushed.status_code, pushed.headers["docker-content-digest"]) == (201, digest)
    read = http.get(pushed.headers["location"])
    assert (read.content, read.headers["docker-content-digest"]) == (manifest.encode(), digest)
    assert http.delete(f"{API}/manifests/{digest}").status_code == 202
    assert http.delete(f"{API}/blobs/{config}").status_code == 202
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("method", ["post", "put"])
def test_bytes_that_have_another_sha512_digest_are_refused(http: httpx.Client, method: str) -> None:
    wrong = Digest.of(b"other", "sha512")
    place = f"{API}/blobs/uploads/" if method == "post" else start(http)
    answer = http.request(method, place, params={"digest": wrong}, content=DATA)
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert stored(http, wrong) is None
