"""Signing with the real cosign, 2 and 3, against a registry on loopback: by a key file and by a key of AWS KMS."""

import base64
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import boto3
import pytest
from pydantic import SecretStr

from local_stack.toolchain import Toolchain
from soci_pipeline.errors import ToolFailed
from soci_pipeline.machine import programs
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.publish.provenance import Origin, attach
from soci_pipeline.publish.registries import Connection
from soci_pipeline.publish.signature import SigningKey, SigningToken, sign
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.referrers import fallback_tag
from soci_pipeline.retention.prune import prune
from soci_pipeline.retention.prune_plan import KeepRules
from tests.support.aws import REGION, emulator, give_credentials, sign_digests, unique
from tests.support.cosign import fulcio_that_refuses
from tests.support.images import AMD64, ARM64, add_image
from tests.support.published import REPOSITORY, tag, upload
from tests.support.registries import AT_ONCE, registry

PLAIN = Connection(plain_http=True)
ORIGIN = Origin(source="https://git.example.com/app.git", ref="main", revision="a" * 40, parameters={}, tools={})
Use = Callable[[str], None]


@pytest.fixture
def use(
    tmp_path: Path,
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> Use:
    """Put one of the two releases first on the PATH."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = os.environ["PATH"]

    def first(tool: str) -> None:
        with or_skip():
            toolchain.ensure([tool])
        monkeypatch.setenv("PATH", f"{toolchain.folder_of(tool)}{os.pathsep}{path}")

    return first


@pytest.fixture
def image(tmp_path: Path) -> tuple[Layout, Descriptor]:
    layout = Layout.create(tmp_path / "layout")
    return layout, layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64),)))


def key_file(folder: Path) -> SigningKey:
    programs.run(["cosign", "generate-key-pair"], cwd=folder, stdin=b"test only")
    return SigningKey(str(folder / "cosign.key"), SecretStr("test only"))


def verify(reference: ImageReference, public: str) -> None:
    argv = ["cosign", "verify", "--key", public, "--insecure-ignore-tlog=true", "--allow-http-registry"]
    programs.run([*argv, str(reference)])


@pytest.mark.parametrize("tool", ["cosign", "cosign-3"])
def test_an_index_is_signed_once_by_key_and_cosign_verifies_it(
    tmp_path: Path, use: Use, image: tuple[Layout, Descriptor], tool: str
) -> None:
    use(tool)
    key, (layout, index) = key_file(tmp_path), image
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        upload(client, layout, index)
        reference = ImageReference.parse(f"{client.registry}/{REPOSITORY}@{index.digest}")

        assert sign(reference, key, PLAIN) is True
        assert sign(reference, key, PLAIN) is False
        verify(reference, str(tmp_path / "cosign.pub"))
        # From release 3 on, a signature is a referrer; before, a tag.
        tags = (f"sha256-{index.digest.hex}.sig",) if tool == "cosign" else ()
        assert client.tags.list(REPOSITORY) == tags
        with pytest.raises(ToolFailed, match="decrypt"):
            sign(reference, SigningKey(key.key, SecretStr("wrong")), PLAIN)


def test_after_a_change_to_cosign_3_an_index_is_not_signed_a_second_time(
    tmp_path: Path, use: Use, image: tuple[Layout, Descriptor]
) -> None:
    layout, index = image
    use("cosign")
    key = key_file(tmp_path)
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        upload(client, layout, index)
        reference = ImageReference.parse(f"{client.registry}/{REPOSITORY}@{index.digest}")
        assert sign(reference, key, PLAIN) is True
        use("cosign-3")
        assert sign(reference, key, PLAIN) is False


def test_a_signature_of_cosign_3_and_the_provenance_share_the_fallback_tag_of_a_registry_without_referrers(
    tmp_path: Path, use: Use, image: tuple[Layout, Descriptor], docker_registry: str
) -> None:
    use("cosign-3")
    key, (layout, index), repository = key_file(tmp_path), image, unique("signed")
    with RegistryClient(docker_registry, plain_http=True) as client:
        upload(client, layout, index, repository=repository)
        reference = ImageReference.parse(f"{docker_registry}/{repository}@{index.digest}")
        for fresh in (True, False):
            assert attach(client, repository, index, (), ORIGIN)[1] is fresh
            assert sign(reference, key, PLAIN) is fresh
        assert len(client.referrers.list(repository, index.digest)) == 2
        assert client.tags.list(repository) == (fallback_tag(index.digest),)
        verify(reference, str(tmp_path / "cosign.pub"))


@pytest.mark.parametrize("tool", ["cosign", "cosign-3"])
def test_retention_keeps_a_signature_with_its_index_and_removes_it_with_it(
    tmp_path: Path, use: Use, image: tuple[Layout, Descriptor], tool: str
) -> None:
    use(tool)
    key, (layout, index) = key_file(tmp_path), image
    other = layout.add_document(ImageIndex(manifests=(add_image(layout, ARM64),)))
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        for root, name in ((index, "old"), (other, "new")):
            tag(client, layout, root, name)
            assert sign(ImageReference.parse(f"{client.registry}/{REPOSITORY}@{root.digest}"), key, PLAIN) is True
        reference = ImageReference.parse(f"{client.registry}/{REPOSITORY}@{other.digest}")
        pruned = prune(client, reference.without_target(), KeepRules(tags=("new",)))
        assert "old" in pruned.deleted
        assert client.referrers.list(REPOSITORY, index.digest) == ()
        # cosign 2 has put a tag on its signature; it goes with the index.
        signatures = [name for name in client.tags.list(REPOSITORY) if name.endswith(".sig")]
        assert signatures == ([f"sha256-{other.digest.hex}.sig"] if tool == "cosign" else [])
        verify(reference, str(tmp_path / "cosign.pub"))


@pytest.mark.parametrize("tool", ["cosign", "cosign-3"])
@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384", "RSA_4096"])
def test_an_index_is_signed_by_a_key_of_aws_kms(
    tmp_path: Path, use: Use, image: tuple[Layout, Descriptor], monkeypatch: pytest.MonkeyPatch, tool: str, spec: str
) -> None:
    use(tool)
    give_credentials(monkeypatch)
    sign_digests(monkeypatch)
    monkeypatch.setenv("AWS_REGION", REGION)
    layout, index = image
    with emulator() as aws, registry(tmp_path / "registry", settings=AT_ONCE) as client:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
        kms = boto3.client("kms", endpoint_url=aws, region_name=REGION)
        made = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        alias = f"alias/{unique('signing')}"
        kms.create_alias(AliasName=alias, TargetKeyId=made)
        upload(client, layout, index)
        reference = ImageReference.parse(f"{client.registry}/{REPOSITORY}@{index.digest}")

        assert sign(reference, SigningKey(f"awskms:///{alias}"), PLAIN) is True
        assert sign(reference, SigningKey(f"awskms:///{made}"), PLAIN) is False
        verify(reference, f"awskms:///{alias}")


def test_an_oidc_token_reaches_the_certificate_authority_of_a_signing_config(
    tmp_path: Path, use: Use, image: tuple[Layout, Descriptor]
) -> None:
    """A double that refuses: that a signature comes of it was not shown, since there is no Fulcio here."""
    use("cosign-3")
    layout, index = image
    token = _token()
    with registry(tmp_path / "registry", settings=AT_ONCE) as client, fulcio_that_refuses(tmp_path) as (config, heard):
        upload(client, layout, index)
        reference = ImageReference.parse(f"{client.registry}/{REPOSITORY}@{index.digest}")
        with pytest.raises(ToolFailed) as caught:
            sign(reference, SigningToken(SecretStr(token), config), PLAIN)
        assert token in heard.read_text()
        assert token not in str(caught.value)
        assert client.tags.list(REPOSITORY) == ()


def _token() -> str:
    claims = {
        "iss": "https://issuer.example",
        "sub": "marked",
        "aud": "sigstore",
        "exp": 4102444800,
        "email": "a@b.example",
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims | {"email_verified": True})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])
