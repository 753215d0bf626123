"""Signing with the real cosign against a registry on loopback."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline import process
from soci_pipeline.errors import ToolFailed
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.publish.registries import Connection
from soci_pipeline.publish.signature import SigningKey, sign
from soci_pipeline.registry.reference import ImageReference
from tests.support.images import AMD64, add_image
from tests.support.published import REPOSITORY, upload
from tests.support.registries import AT_ONCE, registry


def test_an_index_is_signed_once_by_key_and_cosign_verifies_it(
    tmp_path: Path,
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with or_skip():
        env = toolchain.ensure(["cosign"])
    monkeypatch.setenv("PATH", env["PATH"])
    monkeypatch.setenv("HOME", str(tmp_path))
    layout = Layout.create(tmp_path / "layout")
    index = layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64),)))
    process.run(["cosign", "generate-key-pair"], cwd=tmp_path, stdin=b"test only")
    key = SigningKey(str(tmp_path / "cosign.key"), SecretStr("test only"))
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        upload(client, layout, index)
        reference = ImageReference.parse(f"{client.registry}/{REPOSITORY}@{index.digest}")
        connection = Connection(plain_http=True)

        assert sign(reference, key, connection) is True
        assert sign(reference, key, connection) is False
        argv = ["cosign", "verify", "--key", str(tmp_path / "cosign.pub"), "--insecure-ignore-tlog=true"]
        process.run([*argv, "--allow-http-registry", str(reference)])
        assert client.list_tags(REPOSITORY) == (f"sha256-{index.digest.hex}.sig",)
        with pytest.raises(ToolFailed, match="decrypt"):
            sign(reference, SigningKey(key.key, SecretStr("wrong")), connection)
