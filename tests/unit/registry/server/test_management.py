"""The conformance suite's category "Content Management", case by case."""

from pathlib import Path

import httpx

from soci_pipeline.oci.digest import Digest
from tests.support.wire import API, LAYER, code_of, manifest_of, put_document, put_image


def tags(http: httpx.Client) -> list[str]:
    listed: list[str] = http.get(f"{API}/tags/list").json()["tags"]
    return listed


def test_a_deleted_tag_is_gone_and_its_manifest_stays(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    put_image(http, "v2")
    assert http.delete(f"{API}/manifests/v1").status_code == 202
    assert (tags(http), http.get(f"{API}/manifests/v1").status_code) == (["v2"], 404)
    assert http.delete(f"{API}/manifests/v2").status_code == 202
    assert http.get(f"{API}/manifests/{image.digest}").status_code == 200


def test_a_deleted_manifest_is_gone_with_all_its_tags(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    put_image(http, "v2")
    other = put_image(http, "keep", layer=b"other")
    assert http.delete(f"{API}/manifests/{image.digest}").status_code == 202
    for reference in ("v1", "v2", image.digest):
        assert http.get(f"{API}/manifests/{reference}").status_code == 404
    assert tags(http) == ["keep"]
    assert http.get(f"{API}/manifests/{other.digest}").status_code == 200


def test_deleting_what_is_not_there_yields_404(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    http.delete(f"{API}/manifests/{image.digest}")
    for reference in ("v1", image.digest):
        answer = http.delete(f"{API}/manifests/{reference}")
        assert (answer.status_code, code_of(answer)) == (404, "MANIFEST_UNKNOWN")
    assert http.delete("/v2/no/such/manifests/v1").status_code == 404


def test_a_deleted_manifest_can_be_pushed_again(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    http.delete(f"{API}/manifests/{image.digest}")
    assert put_image(http, "v1") == image
    assert http.get(f"{API}/manifests/v1").status_code == 200


def test_a_deleted_blob_is_gone(http: httpx.Client) -> None:
    put_image(http, "v1")
    address = f"{API}/blobs/{Digest.of(LAYER)}"
    assert http.delete(address).status_code == 202
    assert http.get(address).status_code == 404
    assert http.delete(address).status_code == 404


def test_a_deleted_referrer_is_no_longer_listed(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    referrer = manifest_of(subject=image)
    put_document(http, referrer)
    http.delete(f"{API}/manifests/{referrer.descriptor.digest}")
    assert http.get(f"{API}/referrers/{image.digest}").json()["manifests"] == []


def test_a_method_that_an_address_does_not_have_is_unsupported(http: httpx.Client) -> None:
    answer = http.patch(f"{API}/manifests/v1")
    assert (answer.status_code, code_of(answer)) == (405, "UNSUPPORTED")


def test_a_manifest_is_not_deleted_as_a_blob(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    answer = http.delete(f"{API}/blobs/{image.digest}")
    assert (answer.status_code, code_of(answer)) == (405, "UNSUPPORTED")
    assert http.get(f"{API}/manifests/v1").status_code == 200


def test_a_manifest_whose_file_was_taken_away_is_unknown(http: httpx.Client, tmp_path: Path) -> None:
    image = put_image(http, "v1")
    for path in tmp_path.rglob(image.digest.hex):
        path.unlink()
    answer = http.get(f"{API}/manifests/v1")
    assert (answer.status_code, code_of(answer)) == (404, "MANIFEST_UNKNOWN")
