"""What is known of a registry before a build: that it answers, that it takes pushes, and how it is spoken to."""

from pathlib import Path

import pytest

from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.publish.registries import check_push, connect, prepare
from soci_pipeline.registry.errors import RegistryUnreachable
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.server import ServerSettings
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.settings import Settings
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, REPOSITORY, registry


def test_a_registry_that_takes_pushes_is_left_as_it_was(tmp_path: Path) -> None:
    with registry(tmp_path) as client:
        check_push(client, REPOSITORY)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 32] == []


def test_a_registry_without_our_credentials_is_refused_before_a_build(tmp_path: Path) -> None:
    with registry(tmp_path, server=ServerSettings(login=LOGIN)) as client, pytest.raises(CredentialsRefused):
        check_push(client, REPOSITORY)
    with registry(tmp_path, server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as client:
        check_push(client, REPOSITORY)


def test_a_registry_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ImageReference.parse("127.0.0.1:1/team/app")
    with connect(image, Settings()) as client:
        client.settings = QUICK
        with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:1"):
            check_push(client, image.repository)


def test_registries_other_than_ecr_let_every_tag_move() -> None:
    assert prepare(ImageReference.parse("registry.example.com/app"), Settings()) == TagMutability()
