import json

import pytest

from soci_pipeline.errors import CredentialsRefused, ExitCode, TagConflict
from soci_pipeline.registry.errors import (
    AccessRefused,
    BlobUnknown,
    ImmutableTag,
    ManifestUnknown,
    RegistryError,
    RepositoryUnknown,
    UploadUnknown,
    from_answer,
)

BASE = "https://r.example.com/v2/a"


def answered(
    status: int, code: str = "", message: str = "", *, path: str = "/manifests/t", **headers: str
) -> RegistryError:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode() if code else b""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return from_answer("GET", f"{BASE}{path}?secret=x", status, names, body, now=1_700_000_000)


@pytest.mark.parametrize(
    ("status", "code", "path", "kind"),
    [
        (404, "MANIFEST_UNKNOWN", "/manifests/t", ManifestUnknown),
        (404, "", "/manifests/t", ManifestUnknown),
        (404, "NAME_UNKNOWN", "/blobs/uploads/", RepositoryUnknown),
        (404, "", "/blobs/sha256:1", BlobUnknown),
        (400, "MANIFEST_BLOB_UNKNOWN", "/manifests/t", BlobUnknown),
        (404, "BLOB_UPLOAD_UNKNOWN", "/blobs/uploads/1", UploadUnknown),
        (416, "", "/blobs/uploads/1", UploadUnknown),
        (416, "", "/blobs/sha256:1", RegistryError),
        (401, "UNAUTHORIZED", "/manifests/t", AccessRefused),
        (403, "DENIED", "/manifests/t", AccessRefused),
        (400, "MANIFEST_INVALID", "/manifests/t", RegistryError),
    ],
)
def test_an_answer_becomes_the_error_that_it_means(
    status: int, code: str, path: str, kind: type[RegistryError]
) -> None:
    error = answered(status, code, path=path)
    assert type(error) is kind
    assert (error.status, error.code, error.temporary) == (status, code, False)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/b/manifests/1.5", "a/b has no tag 1.5: GET https://"),
        (f"/manifests/sha256:{'0' * 64}", f"a has no manifest sha256:{'0' * 64}: GET https://"),
        ("/b/tags/list", "the repository a/b does not exist: GET https://"),
        ("/blobs/sha256:1", "GET https://"),
        ("/token", "GET https://"),
    ],
)
def test_what_is_not_there_is_named_as_people_call_it(path: str, words: str) -> None:
    assert answered(404, path=path).reason.startswith(words)


def test_an_unknown_repository_is_named_whatever_was_asked_of_it() -> None:
    assert answered(404, "NAME_UNKNOWN", path="/b/manifests/1.5").reason.startswith(
        "the repository a/b does not exist: GET"
    )


def test_a_manifest_that_is_put_is_not_what_the_registry_lacks() -> None:
    error = from_answer("PUT", f"{BASE}/manifests/v1", 404, {}, b"", now=0)
    assert error.reason.startswith("PUT https://")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_temporary(status: int) -> None:
    assert answered(status).temporary


def test_a_code_that_may_pass_is_temporary_whatever_its_status() -> None:
    assert answered(400, "TOOMANYREQUESTS").temporary


def test_ecrs_refusal_of_a_tag_that_is_immutable_is_a_tag_conflict() -> None:
    message = "The image tag 'v1' already exists in the 'a' repository and cannot be overwritten: it is immutable."
    error = answered(400, "TAG_INVALID", message)
    assert isinstance(error, ImmutableTag)
    assert isinstance(error, TagConflict)
    assert error.exit_code == ExitCode.TAG_CONFLICT


def test_a_refusal_of_access_counts_as_one_of_credentials() -> None:
    assert issubclass(AccessRefused, CredentialsRefused)
    assert answered(403).exit_code == ExitCode.CREDENTIALS


def test_queries_and_users_never_reach_a_message() -> None:
    assert "secret" not in str(answered(500))


def test_control_characters_of_a_registry_do_not_reach_a_terminal() -> None:
    assert "\x1b" not in str(answered(400, "X", "\x1b[31mred"))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors":[]}', b'{"errors":[1]}', b'{"errors":{}}', b"[" * 9999]
)
def test_an_error_body_of_any_shape_is_survived(body: bytes) -> None:
    assert from_answer("GET", BASE, 500, {}, body, now=0).status == 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0), ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0), ("soon", None)],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert answered(503, Retry_After=value).retry_after is None
    assert from_answer("GET", BASE, 503, {"retry-after": value}, b"", now=1_700_000_000).retry_after == seconds
