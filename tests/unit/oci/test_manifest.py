import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci import canonical_json, media_types
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, ImageManifest, parse
from soci_pipeline.oci.platform import Platform


def _descriptor(data: bytes, media_type: str = media_types.OCI_LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


MANIFEST = ImageManifest(
    config=_descriptor(b"{}", media_types.OCI_CONFIG),
    layers=(_descriptor(b"one"), _descriptor(b"two")),
    annotations={"b": "<&>", "a": "ä\u2028"},
)


def test_a_manifest_is_compact_json_in_go_s_order_with_go_s_escapes() -> None:
    text = MANIFEST.encode().decode()
    assert text.startswith('{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"med')
    assert text.endswith('"annotations":{"a":"ä\\u2028","b":"\\u003c\\u0026\\u003e"}}')


def test_an_encoded_manifest_reads_back_to_the_same_value() -> None:
    assert parse(MANIFEST.encode()) == MANIFEST
    index = ImageIndex(
        manifests=(MANIFEST.descriptor.annotated(platform=Platform("linux", "arm64", "v8"), artifact_type="x/y"),),
        subject=_descriptor(b"s"),
    )
    assert parse(index.encode()) == index


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=5))
def test_any_annotations_survive_the_round_trip(annotations: dict[str, str]) -> None:
    encodable = all(not any(0xD800 <= ord(c) <= 0xDFFF for c in key + value) for key, value in annotations.items())
    if encodable:
        assert parse(MANIFEST.replaced(annotations=annotations).encode()).annotations == annotations


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"not json", "not valid JSON"),
        (b"[]", "schema version 2"),
        (b'{"schemaVersion":1}', "schema version 2"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[]}', "both an image manifest and an image index"),
        (b'{"schemaVersion":2,"mediaType":"text/plain"}', "not a manifest media type"),
        (b'{"schemaVersion":2,"layers":[]}', "not a manifest"),
        (b'{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:1","size":1}]}', "not a"),
        (b'{"schemaVersion":2,"manifests":[{"mediaType":"a","size":-1}]}', "not a"),
        (b'{"schemaVersion":2,"manifests":7}', "not a manifest"),
        (b'{"schemaVersion":2,"mediaType":[],"layers":[]}', "not a manifest"),
        (b'{"schemaVersion":2,"mediaType":["x"],"layers":[]}', "not a manifest media type"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "exceeds the limit"),
    ],
)
def test_a_document_that_is_no_manifest_is_refused_by_name(document: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse(document)


@pytest.mark.parametrize(
    "field",
    [
        {"size": "1"},
        {"size": True},
        {"size": 1.0},
        {"size": 1 << 63},
        {"urls": "https://example.org"},
        {"platform": {"os": "linux", "architecture": "amd64", "os.features": "win32k"}},
        {"platform": {"os": "linux", "architecture": "amd64\x1b[2J"}},
        {"platform": {"os": "linux", "architecture": "\ud800"}},
    ],
)
def test_a_descriptor_with_a_field_of_another_kind_is_refused(field: dict[str, object]) -> None:
    descriptor = _descriptor(b"{}").to_json() | field
    with pytest.raises(InvalidInput, match="not a"):
        parse(json.dumps({"schemaVersion": 2, "config": descriptor, "layers": []}).encode())


def test_half_a_surrogate_pair_is_written_as_go_writes_it() -> None:
    fields = MANIFEST.to_json() | {"annotations": {"key": "\ud83d", "\udfff": "value"}}
    document = parse(json.dumps(fields).encode())
    assert document.encode().decode().endswith('"annotations":{"key":"\ufffd","\ufffd":"value"}}')


def test_a_document_served_under_another_type_than_its_own_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the media type"):
        parse(MANIFEST.encode(), media_type=media_types.OCI_INDEX)


def test_docker_types_are_read_as_they_are_and_have_oci_counterparts() -> None:
    fields = MANIFEST.to_json() | {"mediaType": media_types.DOCKER_MANIFEST}
    document = parse(canonical_json.encode(fields))
    assert document.media_type == media_types.DOCKER_MANIFEST
    assert json.loads(document.encode())["mediaType"] == media_types.DOCKER_MANIFEST


def test_a_manifest_that_refers_to_other_digests_than_sha256_is_for_registries_alone() -> None:
    config = Descriptor(media_type=media_types.OCI_CONFIG, digest=Digest.of(b"{}", "sha512"), size=2)
    data = ImageManifest(config=config).encode()
    assert parse(data, any_algorithm=True).children == (config,)
    with pytest.raises(InvalidInput, match="sha256 digests are supported"):
        parse(data)
