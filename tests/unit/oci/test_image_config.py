"""What publishing reads of an image config, and the configs that are none."""

import json

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import diff_ids_of_config, platform_of_config
from tests.support.images import ARM64

DIFF_ID = Digest.of(b"layer")


def test_the_platform_and_the_uncompressed_layers_are_read() -> None:
    config = {"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]}}
    data = json.dumps(config).encode()
    assert platform_of_config(data) == ARM64
    assert diff_ids_of_config(data) == (DIFF_ID,)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[]", "is not a JSON object"),
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes, told: str) -> None:
    for read in (platform_of_config, diff_ids_of_config):
        with pytest.raises(InvalidInput, match=told):
            read(data)


@pytest.mark.parametrize("rootfs", [None, [], {}, {"diff_ids": None}, {"diff_ids": [1]}, {"diff_ids": "sha256:1"}])
def test_a_config_without_a_list_of_layers_is_refused(rootfs: object) -> None:
    with pytest.raises(InvalidInput, match=r"no list rootfs\.diff_ids"):
        diff_ids_of_config(json.dumps({"rootfs": rootfs}).encode())
