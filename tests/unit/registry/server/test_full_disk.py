"""The embedded registry on a disk that fills up: nothing is acknowledged that is not stored, and space comes back."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.server import ServerSettings
from tests.support.registries import leftovers, noise
from tests.support.wire import (
    API,
    CONFIG,
    LAYER,
    code_of,
    manifest_of,
    put_blob,
    put_document,
    put_image,
    start,
    wire,
)

ON_A_SMALL_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=3m none "$0" && exec "$@"']
LIMITED = """
import resource, sys
from soci_pipeline.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
main(["registry", "serve", sys.argv[1], "--port", "0"])
"""
FIRST, SECOND = noise(2_000_000, 1), noise(1_500_000, 2)

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@contextmanager
def served(argv: list[str]) -> Iterator[httpx.Client]:
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            address = child.stderr.readline().split()[-1]
            with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=20) as http:
                yield http
        finally:
            child.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[httpx.Client]:
    """A registry whose folder is a file system of 3 MiB."""
    serve = [sys.executable, "-m", "soci_pipeline", "registry", "serve", str(tmp_path), "--port", "0"]
    with served([*ON_A_SMALL_DISK, str(tmp_path), *serve]) as http:
        yield http


def push(http: httpx.Client, data: bytes, method: str) -> httpx.Response:
    """Push a blob in one of the ways of the spec; the first answer that is not a success, or the last one."""
    digest = Digest.of(data)
    if method == "POST":
        return http.post(f"{API}/blobs/uploads/", params={"digest": digest}, content=data)
    location = start(http)
    if method == "PUT":
        return http.put(location, params={"digest": digest}, content=data)
    for first in range(0, len(data), 400_000):
        part = data[first : first + 400_000]
        answer = http.patch(location, content=part, headers={"Content-Range": f"{first}-{first + len(part) - 1}"})
        if answer.status_code != 202:
            assert http.get(location).status_code == 404, "an upload that failed keeps its space"
            return answer
    return http.put(location, params={"digest": digest})


@only_root
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_blob_that_the_disk_does_not_take_is_rejected_and_can_be_pushed_later(
    small_disk: httpx.Client, method: str
) -> None:
    assert push(small_disk, FIRST, method).status_code == 201
    assert push(small_disk, SECOND, method).status_code == 507
    assert small_disk.head(f"{API}/blobs/{Digest.of(SECOND)}").status_code == 404
    # What the failed upload took is free again.
    assert push(small_disk, noise(500_000, 3), method).status_code == 201
    assert small_disk.delete(f"{API}/blobs/{Digest.of(FIRST)}").status_code == 202
    assert push(small_disk, SECOND, method).status_code == 201
    assert small_disk.get(f"{API}/blobs/{Digest.of(SECOND)}").content == SECOND


@only_root
def test_a_manifest_that_the_disk_does_not_take_is_rejected_and_deleting_makes_room(small_disk: httpx.Client) -> None:
    image = put_image(small_disk, "kept")
    put_blob(small_disk, FIRST)
    filled = [data for data in (noise(1 << power, power) for power in range(20, 10, -1)) if _fits(small_disk, data)]
    large = ImageIndex(annotations={"a": "x" * 10_000})
    answer = put_document(small_disk, large, "lost")
    assert (answer.status_code, code_of(answer)) == (507, "UNKNOWN")
    assert small_disk.get(f"{API}/tags/list").json()["tags"] == ["kept"]
    assert small_disk.head(f"{API}/manifests/{large.descriptor.digest}").status_code == 404
    assert filled
    assert small_disk.delete(f"{API}/blobs/{Digest.of(FIRST)}").status_code == 202
    assert put_document(small_disk, large, "lost").status_code == 201
    assert small_disk.head(f"{API}/manifests/kept").headers["docker-content-digest"] == image.digest


def _fits(http: httpx.Client, data: bytes) -> bool:
    return push(http, data, "POST").status_code == 201


def test_a_file_that_takes_a_part_of_a_write_fails_the_upload(tmp_path: Path) -> None:
    """With a limit on file sizes, the write that crosses it takes fewer bytes and reports no error."""
    with served([sys.executable, "-c", LIMITED, str(tmp_path)]) as http:
        for method in ("POST", "PUT", "PATCH"):
            assert push(http, SECOND, method).status_code == 507
        assert http.head(f"{API}/blobs/{Digest.of(SECOND)}").status_code == 404
        assert leftovers(tmp_path) == []
        put_image(http, "v1")


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 500)])
def test_a_disk_that_reports_the_failure_only_when_it_is_waited_for_fails_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with wire(tmp_path, settings=ServerSettings(sync=True)) as http:
        put_blob(http, CONFIG)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            assert push(http, LAYER, "PUT").status_code == status
            assert put_document(http, manifest_of(), "v1").status_code == status
        assert http.head(f"{API}/blobs/{Digest.of(LAYER)}").status_code == 404
        assert http.get(f"{API}/tags/list").json()["tags"] == []
        assert leftovers(tmp_path) == []
        put_image(http, "v1")


def test_bytes_that_change_on_the_disk_during_an_upload_are_found_at_its_end(
    http: httpx.Client, tmp_path: Path
) -> None:
    location = start(http)
    assert http.patch(location, content=LAYER).status_code == 202
    (file,) = leftovers(tmp_path)
    file.write_bytes(LAYER[:-1] + b"!")
    answer = http.put(location, params={"digest": Digest.of(LAYER)})
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("change", [LAYER[:-1], LAYER + b"!"], ids=["shorter", "longer"])
def test_an_upload_whose_file_has_another_size_is_rejected(http: httpx.Client, tmp_path: Path, change: bytes) -> None:
    location = start(http)
    assert http.patch(location, content=LAYER).status_code == 202
    (file,) = leftovers(tmp_path)
    file.write_bytes(change)
    assert http.put(location, params={"digest": Digest.of(change)}).status_code == 500
    assert http.head(f"{API}/blobs/{Digest.of(change)}").status_code == 404


def test_a_damaged_blob_in_an_old_folder_is_replaced_by_the_next_push(tmp_path: Path) -> None:
    """Servers before this one kept what a full disk had cut off."""
    with wire(tmp_path) as http:
        put_blob(http, CONFIG)
        put_blob(http, LAYER)
        path = tmp_path / "team+app" / "blobs" / "sha256" / Digest.of(LAYER).hex
        path.chmod(0o644)
        path.write_bytes(LAYER[:5])
        answer = put_document(http, manifest_of(LAYER), "v1")
        assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert http.head(f"{API}/blobs/{Digest.of(LAYER)}").status_code == 404
        put_image(http, "v1")
        assert http.get(f"{API}/blobs/{Digest.of(LAYER)}").content == LAYER
