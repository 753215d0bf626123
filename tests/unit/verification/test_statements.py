"""The subject of an in-toto statement is the image that is attested."""

import json
from typing import Any

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.client import RegistryClient
from tests.support.images import AMD64, add_attestation, add_image, as_artifact
from tests.support.published import upload
from tests.support.verified import faults, verified

OTHER = Digest.of(b"another image")


def statement(*subjects: Any, kind: str = "https://in-toto.io/Statement/v0.1") -> bytes:
    return json.dumps({"_type": kind, "predicateType": "https://spdx.dev/Document", "subject": subjects}).encode()


def subject(name: str, digest: Digest) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.hex}}


def attested(client: RegistryClient, layout: Layout, payload: bytes | None, *, artifact: bool = False) -> Digest:
    image = add_image(layout, AMD64)
    attestation = add_attestation(layout, image, payload=payload)
    if artifact:
        attestation = as_artifact(layout, attestation, image)
    root = layout.add_document(ImageIndex(manifests=(image, attestation)))
    upload(client, layout, root)
    return root.digest


@pytest.mark.parametrize("artifact", [True, False])
@pytest.mark.parametrize("mode", ["sample", "all"])
@pytest.mark.parametrize("name", ["_", "pkg:docker/test@1?platform=linux%2Famd64"])
def test_a_statement_about_another_image_is_found(
    client: RegistryClient, layout: Layout, artifact: bool, mode: str, name: str
) -> None:
    found = faults(client, attested(client, layout, statement(subject(name, OTHER)), artifact=artifact), mode)
    assert f"its subject is {OTHER}, but the attestation is listed for sha256:" in found


@pytest.mark.parametrize(
    "payload",
    [
        None,
        b"not JSON",
        b"[" * 100_000,
        b"[]",
        statement(),
        statement(subject("usr/bin/app", OTHER)),
        statement("text", {"name": 5}, {"name": "_"}, {"name": "_", "digest": "text"}, {"name": "_", "digest": {}}),
        statement(subject("_", OTHER), kind="https://example.com/other"),
        json.dumps({"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": []}).encode(),
    ],
)
def test_other_subjects_and_signed_statements_are_not_compared(
    client: RegistryClient, layout: Layout, payload: bytes | None
) -> None:
    report = verified(client, attested(client, layout, payload))
    assert report.ok
    assert report.checked["statements"] == 1


def test_a_statement_that_is_not_in_the_registry_is_found(client: RegistryClient, layout: Layout, kept: Layout) -> None:
    root = attested(client, layout, data := statement(subject("usr/bin/app", OTHER)))
    kept.blob_path(Digest.of(data)).unlink()
    assert f"statement {Digest.of(data)}" in faults(client, root)


def test_a_nested_image_index_is_said_not_to_be_verified(client: RegistryClient, layout: Layout) -> None:
    nested = layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64),)))
    root = layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64), nested)))
    upload(client, layout, root)
    assert "1 nested image index not verified" in verified(client, root.digest).checked_summary()
