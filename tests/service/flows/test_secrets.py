"""Secrets from Prefect blocks: for git and for builds, as files that only last as long as they are needed."""

import stat
import traceback
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from soci_pipeline.errors import InvalidInput
from tasks.secrets import git_credentials, secret_files


def _block(value: str | dict[str, Any]) -> str:
    name = f"made-{uuid4().hex[:8]}"
    Secret(value=cast("Any", value)).save(name)
    return f"secret/{name}"


def test_a_token_alone_is_gits_password() -> None:
    found = git_credentials(_block("t0ken"))
    assert found is not None
    assert found.password is not None
    assert (found.username, found.password.get_secret_value(), found.ssh_key) == ("git", "t0ken", None)


def test_a_mapping_may_name_the_user() -> None:
    for value in ({"username": "robot", "token": "t0ken"}, '{"username": "robot", "password": "t0ken"}'):
        found = git_credentials(_block(value))
        assert found is not None
        assert found.password is not None
        assert (found.username, found.password.get_secret_value()) == ("robot", "t0ken")


def test_a_private_key_is_for_ssh() -> None:
    found = git_credentials(_block("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----"))
    assert found is not None
    assert found.ssh_key is not None
    assert found.password is None


def test_without_a_name_there_are_no_credentials() -> None:
    assert git_credentials(None) is None


def test_a_block_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidInput, match="secret/nowhere"):
        git_credentials("secret/nowhere")


def test_a_block_of_another_shape_is_named_without_its_contents() -> None:
    place = _block({"color": "hunter2"})
    with pytest.raises(InvalidInput, match=place) as caught:
        git_credentials(place)
    assert "hunter2" not in str(caught.value)


def test_a_block_that_does_not_match_its_type_is_named_without_its_contents() -> None:
    place = _block("x")
    with get_client(sync_client=True) as client:
        there = client.read_block_document_by_name(place.partition("/")[2], "secret", include_secrets=False)
        client.update_block_document(there.id, BlockDocumentUpdate(data={"old": "hunter2"}, merge_existing_data=False))
    with pytest.raises(InvalidInput, match=f"{place} does not match its type") as caught:
        git_credentials(place)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_build_secrets_are_files_for_their_owner_alone_and_only_for_the_block(tmp_path: Path) -> None:
    with secret_files({"npm": _block("t0ken"), "conf": _block({"a": 1})}, tmp_path) as files:
        assert files["npm"].read_text() == "t0ken"
        assert files["conf"].read_text() == '{"a": 1}'
        assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
        assert stat.S_IMODE(files["npm"].parent.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_a_text_reaches_the_build_as_it_was_stored_though_it_is_json(tmp_path: Path) -> None:
    stored = '{ "auths" : {} }\n'
    with secret_files({"config": _block(stored)}, tmp_path) as files:
        assert files["config"].read_text() == stored


def test_nothing_is_left_where_one_of_the_secrets_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput), secret_files({"npm": _block("t0ken"), "no": "secret/nowhere"}, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
