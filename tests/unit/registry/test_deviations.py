"""Registries as they really behave: a push and a pull through each of `tests.support.deviations`.

docs/fault-matrix.md has a row for each of them.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BrokenAnswer, ImmutableTag, RegistryError
from soci_pipeline.registry.referrers import fallback_tag
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.retention.prune import execute, read_repository
from soci_pipeline.retention.prune_plan import KeepRules, plan_prune
from soci_pipeline.retention.remover import OneByOne
from tests.support import deviations
from tests.support.deviations import Registry
from tests.support.registries import AT_ONCE, described, noise, push_image, upload
from tests.support.strange import strange

NAME = "team/app"
MIB = 1 << 20
LARGE = noise(700_000)
LARGEST = noise(20 * MIB, seed=2)
IN_PARTS = replace(AT_ONCE, part_size=6 * MIB)


@contextmanager
def client_of(registry: Registry, settings: ClientSettings = AT_ONCE) -> Iterator[RegistryClient]:
    with strange(registry.answer) as address, RegistryClient(address, settings=settings) as client:
        yield client


def sent(registry: Registry, method: str, part: str = "/uploads/") -> int:
    return len([each for each in registry.requests if each.startswith(method) and part in each])


def push_and_pull(client: RegistryClient) -> None:
    """What a publication does: blobs, a manifest by digest and by tag, a referrer, and all of it read again."""
    config = upload(client, b'{"architecture":"amd64","os":"linux"}', OCI_CONFIG, to=NAME)
    layer = upload(client, LARGE, to=NAME)
    manifest = ImageManifest(config=config, layers=(layer,))
    image = manifest.descriptor
    for reference in (image.digest, "v1", "v2"):
        assert image == client.manifests.put(NAME, reference, manifest.encode(), manifest.media_type)
        assert client.manifests.head(NAME, reference) == image
    assert client.manifests.get(NAME, "v1")[1] == manifest.encode()
    assert {"v1", "v2"} <= set(client.tags.list(NAME))
    assert client.blobs.exists(NAME, layer)
    assert not client.blobs.exists(NAME, described(b"not there"))
    assert client.manifests.head(NAME, "not-there") is None
    assert client.blobs.read(NAME, layer) == LARGE
    assert client.blobs.read_range(NAME, layer.digest, 5, 15) == LARGE[5:15]
    push_referrer(client, image, manifest)


def push_referrer(client: RegistryClient, image: Descriptor, manifest: ImageManifest) -> None:
    assert client.referrers.list(NAME, image.digest) == ()
    referrer = manifest.replaced(layers=(), subject=image, artifact_type="application/x")
    client.manifests.put(NAME, referrer.descriptor.digest, referrer.encode(), referrer.media_type)
    assert [each.digest for each in client.referrers.list(NAME, image.digest)] == [referrer.descriptor.digest]


DEVIATIONS: dict[str, Callable[[], Registry]] = {
    "none": Registry,
    "no referrers API": deviations.NoReferrers,
    "404 for parts": lambda: deviations.RejectsParts(404),
    "405 for parts": lambda: deviations.RejectsParts(405),
    "413 for parts": lambda: deviations.RejectsParts(413),
    "416 for parts": lambda: deviations.RejectsParts(416),
    "501 for parts": lambda: deviations.RejectsParts(501),
    "405 for a blob in one request": deviations.WantsParts,
    "a lost session": deviations.LosesSessions,
    "204 for a part": deviations.AnswersPartsWith204,
    "201 for a part, stale Range": deviations.AnswersPartsWith201,
    "416 after a part whose answer was lost": deviations.DoubtsAfterACut,
    "no status of a session": deviations.HasNoStatusAfterACut,
    "Range of one too many": deviations.CountsOneTooManyAfterACut,
    "Range of an empty session": deviations.NamesNoRangeAfterACut,
    "no Location": deviations.NamesNoLocation,
    "200 for what was made": lambda: deviations.AnswersWithOtherStatuses(200),
    "202 for what was made": lambda: deviations.AnswersWithOtherStatuses(202),
    "204 for what was made": lambda: deviations.AnswersWithOtherStatuses(204),
    "202 for a blob that is lost": deviations.AcceptsAndForgets,
    "405 for HEAD": deviations.HasNoHead,
    "501 for HEAD": deviations.HeadIsNotImplemented,
    "a digest of another algorithm": deviations.NamesManifestsBySha512,
    "500 for HEAD": deviations.HeadFails,
    "manifests as JSON": lambda: deviations.NamesNoMediaType("application/json; charset=utf-8"),
    "manifests as text": lambda: deviations.NamesNoMediaType("text/plain"),
    "length 0 for HEAD": deviations.HeadHasNoLength,
    "other codes for 404": deviations.NamesOtherCodes,
    "no Docker-Content-Digest": deviations.NamesNoDigest,
    "a web page as the list of referrers": lambda: deviations.AnswersReferrersWith(200, deviations.PAGE),
    "JSON of another kind as the list of referrers": lambda: deviations.AnswersReferrersWith(200, '{"errors": []}'),
    "400 for referrers": lambda: deviations.AnswersReferrersWith(400, ""),
    "405 for referrers": lambda: deviations.AnswersReferrersWith(405, ""),
    "the fallback tag is read as a digest": deviations.ReadsTheFallbackTagAsADigest,
    "400 for a blob that another client uploaded": deviations.RejectsWhatAnotherUploaded,
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_an_image_is_pushed_and_pulled_in_spite_of(name: str) -> None:
    with client_of(DEVIATIONS[name]()) as client:
        push_and_pull(client)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_no_blob_is_sent_many_times_in_spite_of(name: str) -> None:
    registry = DEVIATIONS[name]()
    with client_of(registry) as client:
        upload(client, LARGE, to=NAME)
    assert registry.received <= 2.1 * len(LARGE)


# Parts


@pytest.mark.parametrize("part", [256 * MIB, 19 * MIB, 8 * MIB, 6 * MIB, 4 * MIB, 1 * MIB])
def test_a_blob_for_a_registry_that_rejects_parts_above_4_mib_costs_at_most_a_quarter_more(part: int) -> None:
    registry = deviations.RejectsLargeParts()
    with client_of(registry, replace(AT_ONCE, part_size=part)) as client:
        client.blobs.upload(NAME, described(LARGEST), lambda: io.BytesIO(LARGEST))
    assert registry.blobs[described(LARGEST).digest] == LARGEST
    assert registry.received <= 1.3 * len(LARGEST)
    assert not registry.sessions


@pytest.mark.parametrize("status", [404, 405, 413, 416, 501])
def test_a_registry_that_rejects_parts_gets_further_blobs_in_one_request(status: int) -> None:
    registry = deviations.RejectsParts(status)
    with client_of(registry) as client:
        for seed in range(4):
            upload(client, noise(700_000, seed=seed), to=NAME)
    assert sent(registry, "PATCH") == 1
    assert sent(registry, "PUT") == 4


@pytest.mark.parametrize("limit", [4 * MIB, 5 * MIB, MIB])
def test_a_proxy_that_limits_requests_gets_small_parts(limit: int) -> None:
    registry = deviations.LimitsRequests(limit)
    data = noise(6 * MIB)
    with client_of(registry, replace(AT_ONCE, part_size=256 * MIB)) as client:
        client.blobs.upload(NAME, described(data), lambda: io.BytesIO(data))
    assert registry.blobs[described(data).digest] == data
    assert not registry.sessions


def test_a_registry_that_takes_no_blob_in_any_way_ends_with_advice() -> None:
    registry = deviations.LimitsRequests(1000)
    with client_of(registry, IN_PARTS) as client, pytest.raises(RegistryError) as caught:
        client.blobs.upload(NAME, described(LARGEST), lambda: io.BytesIO(LARGEST))
    assert caught.value.status == 413
    assert "SOCI_PIPELINE_REGISTRY_PART_SIZE" in str(caught.value.advice)
    assert sent(registry, "PATCH") <= 3
    assert sent(registry, "PUT") <= 1


def test_a_session_that_is_lost_again_and_again_ends_in_one_request() -> None:
    registry = deviations.LosesSessions()
    registry.losses = 99
    with client_of(registry) as client:
        upload(client, LARGE, to=NAME)
    assert (sent(registry, "POST"), sent(registry, "PUT")) == (3, 1)


def test_a_manifest_that_was_accepted_and_is_not_there_is_an_error() -> None:
    settings = replace(AT_ONCE, settle_time=0)
    with client_of(deviations.AcceptsManifestsAndForgets(), settings) as client:
        with pytest.raises(BrokenAnswer, match="did not store") as caught:
            push_image(client, "v1", to=NAME)
        assert caught.value.status == 202


def test_a_416_after_another_fault_leads_to_a_new_session_and_not_away_from_parts() -> None:
    registry = deviations.DoubtsAfterACut()
    with client_of(registry) as client:
        for seed in (1, 2):
            upload(client, noise(700_000, seed=seed), to=NAME)
    assert sent(registry, "POST") == 3
    assert sent(registry, "PATCH") == 2 + 3 + 3


# Mounts


@pytest.mark.parametrize(("status", "mounts"), [(201, True), (200, True), (200, False), (202, False)])
def test_a_mount_counts_where_the_blob_is_there(status: int, mounts: bool) -> None:
    registry = deviations.MountsWith(status, mounts=mounts)
    blob = described(LARGE)
    registry.elsewhere[blob.digest] = LARGE
    with client_of(registry) as client:
        uploaded = client.blobs.upload(NAME, blob, lambda: io.BytesIO(LARGE), mount_from="other/app")
    assert uploaded is not mounts
    assert registry.blobs[blob.digest] == LARGE


# Reading


def test_a_blob_under_a_url_that_is_signed_for_get_is_found() -> None:
    registry = deviations.SignsForGet()
    with strange(registry.store) as registry.storage, client_of(registry) as client:
        push_and_pull(client)


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", ""])
def test_a_manifest_without_a_media_type_is_known_by_its_fields(media_type: str) -> None:
    plain = b'{"schemaVersion":2,"config":%s,"layers":[]}' % json.dumps(described(b"{}", OCI_CONFIG).to_json()).encode()
    index = b'{"schemaVersion":2,"manifests":[]}'
    with client_of(deviations.NamesNoMediaType(media_type)) as client:
        for data, kind in ((plain, OCI_MANIFEST), (index, OCI_INDEX), (b"{}", media_type)):
            client.manifests.put(NAME, "v1", data, kind or "application/json")
            assert client.manifests.get(NAME, "v1")[0].media_type == kind


def test_an_upload_that_is_redirected_goes_on_at_the_server_that_opened_it() -> None:
    registry, other = deviations.LeadsToAnother(), Registry()
    with strange(other.answer) as registry.other, client_of(registry) as client:
        client.blobs.upload(NAME, described(LARGE), lambda: io.BytesIO(LARGE))
    assert other.blobs[described(LARGE).digest] == LARGE
    assert sent(registry, "PATCH") == 0


@pytest.mark.parametrize("document", [{"name": NAME, "tags": None}, {"name": NAME}, {"tags": None}])
def test_a_repository_without_tags_has_none(document: dict[str, object]) -> None:
    with client_of(deviations.ListsNoTags(document)) as client:
        assert client.tags.list(NAME) == ()


@pytest.mark.parametrize("document", [{}, {"errors": []}, {"tags": 5}, {"repositories": []}])
def test_a_document_that_is_no_list_of_tags_is_not_an_empty_one(document: dict[str, object]) -> None:
    with client_of(deviations.ListsNoTags(document)) as client, pytest.raises(BrokenAnswer, match="list of tags"):
        client.tags.list(NAME)


@pytest.mark.parametrize(
    "form",
    [
        '<{}>; rel="next"',
        '{}; rel="next"',
        "<{}>;rel=next",
        "<{}>; REL='next'",
        '<{}>; type="text/html"; rel="next"',
        '</v2/>; rel="first", <{}>; rel="next", </v2/x>; rel="last"',
        '<http://{host}>; rel="next"',
    ],
)
def test_pages_are_followed_in_every_form_of_link(form: str) -> None:
    registry = deviations.LinksToPages(form)
    with client_of(registry) as client:
        for tag in ("v1", "v2", "v3"):
            push_image(client, tag, to=NAME)
        assert client.tags.list(NAME) == ("v1", "v2", "v3")


def test_a_null_list_of_referrers_is_empty() -> None:
    with client_of(deviations.ListsNullReferrers()) as client:
        image, _ = push_image(client, "v1", to=NAME)
        assert client.referrers.list(NAME, image.digest) == ()
        assert client.manifests.head(NAME, fallback_tag(image.digest)) is None


# Tags that may not move, and what cannot be deleted


@pytest.mark.parametrize(
    ("status", "code", "message", "detail"),
    [
        (412, "PRECONDITION", "Failed to process request due to 'team/app:v1' configured as immutable.", ""),
        (400, "BLOB_UPLOAD_INVALID", "blob upload invalid", "Repository does not allow updating assets: docker"),
        (405, "REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image", ""),
        (400, "TAG_INVALID", "cannot update tag v1: the repository has enabled tag immutability", ""),
    ],
    ids=["Harbor", "Nexus", "Azure", "Artifact Registry"],
)
def test_a_tag_that_may_not_move_is_a_conflict(status: int, code: str, message: str, detail: str) -> None:
    with client_of(deviations.RejectsManifest(status, code, message, detail)) as client:
        push_image(client, "v1", to=NAME)
        with pytest.raises(ImmutableTag) as caught:
            push_image(client, "v1", to=NAME, seed=2)
    assert caught.value.exit_code is ExitCode.TAG_CONFLICT


@pytest.mark.parametrize("status", [404, 405])
def test_a_manifest_that_was_not_deleted_does_not_count_as_deleted(status: int) -> None:
    with client_of(deviations.DeletesNothing(status)) as client:
        image, _ = push_image(client, "v1", to=NAME)
        with pytest.raises(RegistryError) as caught:
            OneByOne(client).delete_manifests(NAME, [image.digest])
    assert caught.value.status == 405


@pytest.mark.parametrize(
    "registry",
    [deviations.RejectsTagDeletion(), *(deviations.DeletesNothing(status) for status in (400, 404, 405, 501))],
    ids=["DIGEST_INVALID", "400", "404", "405", "501"],
)
def test_a_tag_that_cannot_be_deleted_stays_with_a_reason(registry: Registry) -> None:
    with client_of(registry) as client:
        for tag in ("v1", "old"):
            push_image(client, tag, to=NAME)
        graph = read_repository(client, NAME)
        made = plan_prune(graph, KeepRules.of(tags=["v1"]), now=datetime(2026, 1, 1, tzinfo=UTC))
        assert list(execute(client, NAME, graph, made)) == ["old"]
        assert set(client.tags.list(NAME)) == {"v1", "old"}


def test_a_manifest_that_is_gone_already_counts_as_deleted() -> None:
    with client_of(Registry()) as client:
        image, _ = push_image(client, "v1", to=NAME)
        for _ in range(2):
            assert OneByOne(client).delete_manifests(NAME, [image.digest]) == {}


def test_the_matrix_has_a_row_for_every_deviation() -> None:
    table = (Path(__file__).parents[3] / "docs" / "fault-matrix.md").read_text()
    kinds = [each for each in vars(deviations).values() if isinstance(each, type) and issubclass(each, Registry)]
    references = {each for kind in kinds for each in re.findall(r"[\w.-]+/[\w.-]+#\d+", kind.__doc__ or "")}
    assert len(references) > 15
    assert [each for each in references if each not in table] == []
