"""The conformance suite's category "Content Discovery", case by case."""

from pathlib import Path

import httpx
import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.server import ServerSettings
from tests.support.wire import API, CONFIG, NAME, code_of, manifest_of, put_blob, put_document, put_image, wire

TAGS = ["B", "a", "a1", "latest", "v1", "v10", "v2"]


@pytest.fixture
def tagged(http: httpx.Client) -> httpx.Client:
    for tag in reversed(TAGS):
        put_image(http, tag)
    return http


def listed(http: httpx.Client, **query: str) -> list[str]:
    answer = http.get(f"{API}/tags/list", params=query)
    assert (answer.status_code, answer.json()["name"]) == (200, NAME)
    tags: list[str] = answer.json()["tags"]
    return tags


def test_all_tags_are_listed_in_lexical_order(tagged: httpx.Client) -> None:
    assert listed(tagged) == sorted(TAGS)


def test_the_number_of_tags_can_be_limited(tagged: httpx.Client) -> None:
    assert listed(tagged, n="3") == sorted(TAGS)[:3]
    assert listed(tagged, n="0") == []
    assert listed(tagged, n="1000") == sorted(TAGS)


def test_the_list_goes_on_after_the_last_tag(tagged: httpx.Client) -> None:
    assert listed(tagged, last="latest") == ["v1", "v10", "v2"]
    assert listed(tagged, n="2", last="latest") == ["v1", "v10"]
    assert listed(tagged, last="zzz") == []


def test_a_page_that_is_not_the_last_links_to_the_next(tagged: httpx.Client) -> None:
    first = tagged.get(f"{API}/tags/list", params={"n": "4"})
    second = tagged.get(first.links["next"]["url"])
    assert first.json()["tags"] + second.json()["tags"] == sorted(TAGS)
    assert "next" not in second.links


def test_tags_of_a_repository_that_is_not_there_yield_404(http: httpx.Client) -> None:
    answer = http.get("/v2/no/such/tags/list")
    assert (answer.status_code, code_of(answer)) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "9" * 5000])
def test_a_limit_that_is_no_number_is_refused(tagged: httpx.Client, text: str) -> None:
    assert tagged.get(f"{API}/tags/list", params={"n": text}).status_code == 400


def test_referrers_of_an_unknown_digest_are_an_empty_index(http: httpx.Client) -> None:
    for name in ("no/such", NAME):
        answer = http.get(f"/v2/{name}/referrers/{Digest.of(b'nowhere')}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, OCI_INDEX)
        assert answer.json()["manifests"] == []
        put_image(http)


def test_referrers_are_listed_with_type_and_annotations(http: httpx.Client) -> None:
    image = put_image(http, "v1")
    signature = manifest_of(subject=image, artifact_type="application/x.sig").replaced(annotations={"a": "b"})
    plain = manifest_of(subject=image)
    for document in (signature, plain):
        put_document(http, document)
    entries = http.get(f"{API}/referrers/{image.digest}").json()["manifests"]
    found = {entry["digest"]: entry for entry in entries}
    assert set(found) == {signature.descriptor.digest, plain.descriptor.digest}
    assert found[signature.descriptor.digest]["artifactType"] == "application/x.sig"
    assert found[signature.descriptor.digest]["annotations"] == {"a": "b"}
    # Without a type of its own, the config's says what the artifact is.
    assert found[plain.descriptor.digest]["artifactType"] == plain.config.media_type


def test_referrers_can_be_filtered_by_artifact_type(http: httpx.Client) -> None:
    image = put_image(http)
    for kind in ("application/x.sig", "application/x.sbom"):
        put_document(http, manifest_of(subject=image, artifact_type=kind))
    answer = http.get(f"{API}/referrers/{image.digest}", params={"artifactType": "application/x.sbom"})
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert [entry["artifactType"] for entry in answer.json()["manifests"]] == ["application/x.sbom"]


def test_referrers_that_came_before_their_subject_are_listed(http: httpx.Client) -> None:
    put_blob(http, CONFIG)
    subject = manifest_of(b"later").descriptor
    put_document(http, manifest_of(subject=subject))
    assert len(http.get(f"{API}/referrers/{subject.digest}").json()["manifests"]) == 1


def test_referrers_of_what_is_no_digest_are_refused(http: httpx.Client) -> None:
    answer = http.get(f"{API}/referrers/latest")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


def test_a_registry_without_the_api_answers_404_and_keeps_quiet_about_subjects(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(referrers=False)) as http:
        image = put_image(http)
        assert "oci-subject" not in put_document(http, manifest_of(subject=image)).headers
        assert http.get(f"{API}/referrers/{image.digest}").status_code == 404
