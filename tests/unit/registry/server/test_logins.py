"""Logins at the embedded registry: what a token allows, and what a request without the right one is told."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import Login, ServerSettings, serving
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, upload
from tests.support.wire import API, LAYER, NAME, wire

USER = (LOGIN.username, LOGIN.password.get_secret_value())
OTHER = "team/other"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[httpx.Client]:
    with wire(tmp_path, settings=ServerSettings(login=LOGIN)) as http:
        yield http


def token(http: httpx.Client, *scopes: str) -> dict[str, str]:
    answer = http.get("/token", params=[("scope", scope) for scope in scopes], auth=USER)
    assert answer.status_code == 200
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def challenge(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 401
    return dict(re.findall(r'(\w+)="([^"]*)"', answer.headers["www-authenticate"]))


@pytest.mark.parametrize(("user", "password"), [("robot", ""), ("robot", "  "), ("", "secret"), ("a:b", "secret")])
def test_a_login_without_a_user_or_password_is_rejected(user: str, password: str) -> None:
    with pytest.raises(InvalidInput, match="must not be empty"):
        Login(user, SecretStr(password), bearer=True)


@pytest.mark.parametrize("fields", [{}, {"refresh_token": ""}, {"refresh_token": "wrong"}])
def test_the_token_endpoint_gives_nothing_without_the_password(guarded: httpx.Client, fields: dict[str, str]) -> None:
    scope = {"scope": f"repository:{NAME}:pull"}
    assert guarded.post("/token", data=fields | scope).status_code == 401
    assert guarded.get("/token", params=scope).status_code == 401
    assert guarded.get("/token", params=scope, auth=("robot", "")).status_code == 401


def test_a_star_in_a_scope_means_every_action_at_that_repository(guarded: httpx.Client) -> None:
    everything = token(guarded, f"repository:{NAME}:*")
    started = guarded.post(f"{API}/blobs/uploads/", headers=everything)
    digest = Digest.of(LAYER)
    put = guarded.put(started.headers["location"], params={"digest": digest}, content=LAYER, headers=everything)
    assert put.status_code == 201
    assert guarded.get(f"{API}/blobs/{digest}", headers=everything).content == LAYER
    assert guarded.delete(f"{API}/blobs/{digest}", headers=everything).status_code == 202
    elsewhere = guarded.get(f"/v2/{OTHER}/tags/list", headers=everything)
    assert challenge(elsewhere)["error"] == "insufficient_scope"


def test_an_action_that_does_not_exist_is_not_granted(guarded: httpx.Client) -> None:
    odd = token(guarded, f"repository:{NAME}:everything,", f"repository:{NAME}", "repository", "*", "registry:other:*")
    assert challenge(guarded.get(f"{API}/tags/list", headers=odd))["error"] == "insufficient_scope"


def test_a_token_that_does_not_suffice_is_told_from_one_that_is_not_valid(guarded: httpx.Client) -> None:
    pull = token(guarded, f"repository:{NAME}:pull")
    path = f"{API}/blobs/uploads/"
    found = challenge(guarded.post(path, headers=pull))
    assert (found["error"], found["scope"]) == ("insufficient_scope", f"repository:{NAME}:pull,push")
    assert challenge(guarded.post(path, headers={"Authorization": "Bearer x"}))["error"] == "invalid_token"
    assert "error" not in challenge(guarded.post(path))


def test_a_mount_from_another_repository_is_challenged_for_both(guarded: httpx.Client) -> None:
    push = token(guarded, f"repository:{NAME}:pull,push")
    mount = {"mount": Digest.of(LAYER), "from": OTHER}
    scopes = f"repository:{NAME}:pull,push repository:{OTHER}:pull"
    for headers in ({}, push):
        assert challenge(guarded.post(f"{API}/blobs/uploads/", params=mount, headers=headers))["scope"] == scopes
    both = token(guarded, *scopes.split())
    assert guarded.post(f"{API}/blobs/uploads/", params=mount, headers=both).status_code == 202


def test_the_client_mounts_between_repositories_that_ask_for_tokens(tmp_path: Path) -> None:
    with (
        serving(tmp_path, settings=ServerSettings(login=LOGIN)) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
    ):
        descriptor = upload(client, LAYER, to=OTHER)
        assert not client.blobs.upload(NAME, descriptor, lambda: pytest.fail("bytes were sent"), mount_from=OTHER)


def test_the_list_of_repositories_needs_a_scope_of_its_own(guarded: httpx.Client) -> None:
    pull = token(guarded, f"repository:{NAME}:*")
    found = challenge(guarded.get("/v2/_catalog", headers=pull))
    assert (found["error"], found["scope"]) == ("insufficient_scope", "registry:catalog:*")
    catalog = token(guarded, "registry:catalog:*")
    assert guarded.get("/v2/_catalog", headers=catalog).json() == {"repositories": []}
    assert guarded.get("/v2/", headers=catalog).status_code == 200
