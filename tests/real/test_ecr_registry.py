"""ECR's tokens at Debian's docker-registry, which wants the one of the hour as password and reads its file anew."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.registry import docker_registry
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.oci.layout import Layout
from soci_pipeline.publish.registries import check_push, connect
from soci_pipeline.registry.pull import pull_graph
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import RegistrySettings, Settings
from tests.support.aws import REGISTRY, Answers, answering, authorization, give_credentials
from tests.support.ecr_name import named_as_ecr
from tests.support.images import AMD64, gzip_layer, image_layout
from tests.support.tars import noise

IMAGE = ImageReference.parse(f"{REGISTRY}/team/app")
EXPIRES_AFTER = 700_000
"""Bytes that were sent, of a push of 1.6 MB."""


@dataclass
class Passwords:
    """The htpasswd file of a registry."""

    file: Path
    changed: bool = False

    def set(self, password: str) -> None:
        hashed = ctypes.CDLL("libcrypt.so.1").crypt
        hashed.restype = ctypes.c_char_p
        self.file.write_bytes(b"AWS:" + hashed(password.encode(), b"$2b$04$" + b"a" * 21 + b"u") + b"\n")

    def change(self, sent: int) -> None:
        """The first token expires when so many bytes were sent."""
        if sent > EXPIRES_AFTER and not self.changed:
            self.changed = True
            self.set("second")


@pytest.fixture
def passwords(tmp_path: Path) -> Passwords:
    made = Passwords(tmp_path / "htpasswd")
    made.set("first")
    return made


@pytest.fixture
def settings(
    passwords: Passwords,
    toolchain: Toolchain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Iterator[Settings]:
    """A registry with that file under ECR's name, and settings with which it is trusted."""
    give_credentials(monkeypatch)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    env = {"REGISTRY_AUTH_HTPASSWD_REALM": "ECR", "REGISTRY_AUTH_HTPASSWD_PATH": str(passwords.file)}
    with ExitStack() as stack:
        with or_skip():
            address = stack.enter_context(docker_registry(tmp_path / "registry", toolchain=toolchain, env=env))
        trusted = stack.enter_context(named_as_ecr(address, tmp_path, monkeypatch, on_upload=passwords.change))
        yield Settings(registry=RegistrySettings(ca_file=trusted))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layers = [gzip_layer({f"opt/{number}": noise(200_000, seed=number)}) for number in range(8)]
    return image_layout(tmp_path / "layout", AMD64, layers)


@pytest.fixture
def ecr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """The control plane: one token, and another when it is asked again."""
    with answering(authorization("first"), authorization("second")) as control_plane:
        monkeypatch.setenv("AWS_ENDPOINT_URL", control_plane.url)
        yield control_plane


def test_a_token_that_expires_midway_is_renewed_and_the_push_goes_on(
    ecr: Answers, passwords: Passwords, settings: Settings, layout: Layout, tmp_path: Path
) -> None:
    with connect(IMAGE, settings) as client:
        report = push_graph(layout, layout.root(), client, IMAGE.repository, tag="v1", jobs=2)
        assert passwords.changed
        assert ecr.asked == ["GetAuthorizationToken"] * 2
        assert report.blobs_uploaded == 9
        pulled = Layout.create(tmp_path / "pulled")
        root = pull_graph(client, IMAGE.repository, "v1", pulled)
        assert {each.digest for each in pulled.walk(root)} == {each.digest for each in layout.walk(layout.root())}


def test_a_token_that_is_wrong_even_when_it_is_new_is_refused_with_the_next_step(
    ecr: Answers, passwords: Passwords, settings: Settings
) -> None:
    passwords.set("third")
    with connect(IMAGE, settings) as client, pytest.raises(CredentialsRefused, match="status 401") as caught:
        check_push(client, IMAGE.repository)
    assert "permissions of the role" in str(caught.value.advice)
    assert [secret for secret in ("first", "second", "third") if secret in str(caught.value)] == []
    assert ecr.asked == ["GetAuthorizationToken"] * 2
