"""The conformance suite's category "Push", case by case: manifests and tags."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex
from soci_pipeline.oci.media_types import OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from soci_pipeline.registry.server import ServerSettings
from tests.support.wire import (
    API,
    CONFIG,
    LAYER,
    code_of,
    manifest_of,
    put_blob,
    put_document,
    put_image,
    wire,
)


def test_a_manifest_is_stored_by_tag_and_by_digest(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    assert http.get(f"{API}/manifests/{image.digest}").status_code == 200
    answer = put_document(http, manifest_of(LAYER))
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, image.digest)
    assert http.get(answer.headers["location"]).status_code == 200


def test_a_manifest_without_layers_is_accepted(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    assert put_document(http, manifest_of(), "empty").status_code == 201


def test_a_manifest_with_a_subject_is_answered_with_that_subject(http: httpx.Client) -> None:
    image = put_image(http)
    answer = put_document(http, manifest_of(subject=image, artifact_type="application/x"))
    assert (answer.status_code, answer.headers["oci-subject"]) == (201, image.digest)


def test_a_subject_need_not_be_there_yet(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    later = Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b"later"), size=5)
    assert put_document(http, manifest_of(subject=later)).status_code == 201


def test_a_manifest_whose_blobs_are_missing_is_refused(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    answer = put_document(http, manifest_of(LAYER), "v1")
    assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert http.get(f"{API}/manifests/v1").status_code == 404


def test_a_layer_that_no_registry_holds_is_not_asked_for(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    foreign = Descriptor(
        media_type=OCI_LAYER_GZIP, digest=Digest.of(b"elsewhere"), size=9, urls=("https://example.com/base",)
    )
    assert put_document(http, manifest_of().replaced(layers=(foreign,)), "v1").status_code == 201


def test_an_index_whose_children_are_missing_is_refused(http: httpx.Client) -> None:
    image = put_image(http)
    absent = manifest_of(b"absent").descriptor
    assert put_document(http, ImageIndex(manifests=(image,)), "good").status_code == 201
    answer = put_document(http, ImageIndex(manifests=(image, absent)), "bad")
    assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    # A blob with the child's bytes is not a manifest yet.
    put_blob(http, manifest_of(b"absent").encode())
    assert put_document(http, ImageIndex(manifests=(image, absent)), "bad").status_code == 400


def test_a_push_by_digest_may_ask_for_tags(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    document = manifest_of()
    answer = http.put(
        f"{API}/manifests/{document.descriptor.digest}",
        params=[("tag", "one"), ("tag", "two")],
        content=document.encode(),
        headers={"Content-Type": document.media_type},
    )
    assert (answer.status_code, answer.headers["oci-tag"]) == (201, "one, two")
    assert http.get(f"{API}/tags/list").json()["tags"] == ["one", "two"]
    assert http.get(f"{API}/manifests/two").content == document.encode()


def raw_manifest(**changes: Any) -> dict[str, Any]:
    return manifest_of().to_json() | changes


def raw_index(*children: Descriptor, **changes: Any) -> dict[str, Any]:
    return ImageIndex(manifests=children).to_json() | changes


@pytest.mark.parametrize(
    "document",
    [
        raw_manifest(annotations={f"large-annotation-{number}": "A" * 10_000 for number in range(390)}),
        raw_manifest(layers=None),
        raw_manifest(layers=[], mediaType=None),
        raw_manifest(config=raw_manifest()["config"] | {"data": "e30=", "newUnspecifiedField": "aGVsbG8="}),
        raw_manifest(newUnspecifiedField={"a": 1}),
        raw_manifest(artifactType="application/vnd.example", layers=[raw_manifest()["config"]]),
        raw_index(),
        raw_index(artifactType="application/vnd.example"),
    ],
    ids=[
        "large",
        "null for layers",
        "no media type of its own",
        "data in a descriptor",
        "unknown fields",
        "artifact",
        "empty index",
        "artifact index",
    ],
)
def test_what_the_suite_pushes_is_stored_byte_for_byte(http: httpx.Client, document: dict[str, Any]) -> None:
    put_blob(http, CONFIG)
    media_type = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    data = json.dumps({key: value for key, value in document.items() if key != "mediaType" or value}, indent=1).encode()
    pushed = http.put(f"{API}/manifests/{Digest.of(data)}", content=iter((data,)), headers={"Content-Type": media_type})
    assert pushed.status_code == 201, pushed.text
    read = http.get(pushed.headers["location"])
    assert (read.content, read.headers["content-type"]) == (data, media_type)


def test_an_index_of_indexes_is_stored(http: httpx.Client) -> None:
    inner = [ImageIndex(annotations={"n": str(number)}) for number in range(2)]
    for each in inner:
        put_document(http, each, each.descriptor.digest)
    outer = ImageIndex(manifests=tuple(each.descriptor for each in inner))
    assert put_document(http, outer, "index-of-index").status_code == 201


def test_a_manifest_under_another_digest_is_refused(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    answer = put_document(http, manifest_of(), Digest.of(b"another"))
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"not json", OCI_MANIFEST),
        (b"{}", OCI_MANIFEST),
        (manifest_of().encode(), "application/json"),
        (manifest_of().encode(), "application/vnd.oci.image.index.v1+json"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}', OCI_MANIFEST),
    ],
)
def test_what_is_no_manifest_is_refused(http: httpx.Client, data: bytes, media_type: str) -> None:
    put_blob(http, CONFIG)
    answer = http.put(f"{API}/manifests/v1", content=data, headers={"Content-Type": media_type})
    assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_INVALID")


def test_a_manifest_above_four_mebibytes_is_refused(http: httpx.Client) -> None:
    data = b" " * (MAX_MANIFEST_BYTES + 1)
    answer = http.put(f"{API}/manifests/v1", content=data, headers={"Content-Type": OCI_MANIFEST})
    assert (answer.status_code, code_of(answer)) == (413, "MANIFEST_INVALID")


def test_a_tag_moves_to_another_manifest_and_the_old_one_stays(http: httpx.Client) -> None:
    old = put_image(http, "v1")
    new = put_image(http, "v1", layer=b"another layer")
    assert http.head(f"{API}/manifests/v1").headers["docker-content-digest"] == new.digest
    assert http.head(f"{API}/manifests/{old.digest}").status_code == 200


def test_an_immutable_tag_takes_its_own_digest_again_and_no_other(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(immutable=lambda tag: tag.startswith("v"))) as http:
        put_image(http, "v1")
        put_image(http, "v1")
        put_image(http, "latest")
        put_image(http, "latest", layer=b"new")
        answer = put_document(http, manifest_of(b"new"), "v1")
        assert (answer.status_code, code_of(answer)) == (400, "TAG_INVALID")
        assert "immutable" in answer.text


def test_many_pushes_at_once_lose_no_tag(http: httpx.Client) -> None:
    put_image(http, "first")
    failures: list[str] = []

    def tag(number: int) -> None:
        answer = put_document(http, manifest_of(LAYER), f"t{number}")
        if answer.status_code != 201:
            failures.append(answer.text)

    threads = [threading.Thread(target=tag, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(http.get(f"{API}/tags/list").json()["tags"]) == 25
