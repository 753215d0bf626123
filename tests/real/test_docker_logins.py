"""The same login as docker and oras send, from the same configuration; and where this library differs on purpose."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from local_stack.toolchain import Toolchain
from soci_pipeline.errors import SociPipelineError
from soci_pipeline.registry.auth import DockerConfig
from tests.support.credential_helpers import install_helpers
from tests.support.docker_logins import Doubles, docker_doubles
from tests.support.registries import shown


@pytest.fixture
def doubles(
    tmp_path: Path,
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Doubles]:
    with or_skip():
        env = toolchain.ensure(["docker", "oras"])
    monkeypatch.setenv("PATH", env["PATH"])
    monkeypatch.setenv("HOME", str(tmp_path))
    install_helpers(tmp_path, monkeypatch)
    with docker_doubles() as started:
        yield started


def entry(user: str, password: str = "pw", **fields: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()} | fields


RIGHT, WRONG = entry("right"), entry("wrong")
SAME: dict[str, Callable[[str], dict[str, Any]]] = {
    "the host before a part of it": lambda host: {"auths": {f"{host}/team-b": WRONG, host: RIGHT}},
    "the host before a URL of it": lambda host: {"auths": {f"https://{host}/v1/": WRONG, host: RIGHT}},
    "a URL of v1": lambda host: {"auths": {f"https://{host}/v1/": RIGHT}},
    "a URL of v2": lambda host: {"auths": {f"http://{host}/v2/": RIGHT}},
    "another port": lambda host: {"auths": {"127.0.0.1": WRONG, "127.0.0.1:1": WRONG}},
    "an empty entry": lambda host: {"auths": {host: {}, f"https://{host}": RIGHT}},
    "user and password": lambda host: {"auths": {host: {"username": "right", "password": "pw"}}},
    "colons": lambda host: {"auths": {host: entry("right", "a:b:c")}},
    "line breaks": lambda host: {"auths": {host: {"auth": f"{RIGHT['auth'][:4]}\n{RIGHT['auth'][4:]}\n"}}},
    "a broken entry": lambda host: {"auths": {host: entry("", "pw")}},
    "the registry's helper": lambda host: {
        "credHelpers": {host: "ok"},
        "credsStore": "failing",
        "auths": {host: WRONG},
    },
    "an empty helper": lambda host: {"credHelpers": {host: ""}, "auths": {host: RIGHT}},
    "a noisy helper": lambda host: {"credsStore": "noisy", "auths": {host: WRONG}},
    "a helper in lower case": lambda host: {"credsStore": "lower-case"},
    "a helper with an empty answer": lambda host: {"credsStore": "empty"},
    "not found": lambda host: {"credsStore": "absent-noisy"},
    "a helper that prints garbage": lambda host: {"credsStore": "garbage"},
}
AS_DOCKER: dict[str, Callable[[str], dict[str, Any]]] = {
    "NUL around the password": lambda host: {"auths": {host: entry("right", "\0pw\0")}},
    "an identity token": lambda host: {"auths": {host: entry("0000", "", identitytoken="t")}},
    "a registry token": lambda host: {"auths": {host: {"registrytoken": "t"}}},
    "an empty helper before a store": lambda host: {
        "credHelpers": {host: ""},
        "credsStore": "ok",
        "auths": {host: RIGHT},
    },
    "more behind the answer": lambda host: {"credsStore": "trailing"},
    "letters of another case": lambda host: {"credSstore": "ok"},
    "a failing helper": lambda host: {"credsStore": "failing", "auths": {host: RIGHT}},
    "a missing helper": lambda host: {"credsStore": "nowhere", "auths": {host: RIGHT}},
}


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def ours(folder: Path, host: str) -> str | None:
    """The login of this library; an error counts as none, since docker then asks without one."""
    try:
        found = DockerConfig(folder / "config.json").credentials_for(host)
    except SociPipelineError:
        return None
    return shown(found)


@pytest.mark.parametrize("case", SAME)
def test_the_login_is_the_one_that_docker_and_oras_send(tmp_path: Path, doubles: Doubles, case: str) -> None:
    host = doubles.registry.address
    write(tmp_path, SAME[case](host))
    sent = ours(tmp_path, host)
    assert (doubles.docker(tmp_path), doubles.oras(tmp_path)) == (sent, sent)


@pytest.mark.parametrize("case", AS_DOCKER)
def test_where_docker_and_oras_differ_the_login_is_the_one_that_docker_sends(
    tmp_path: Path, doubles: Doubles, case: str
) -> None:
    host = doubles.registry.address
    write(tmp_path, AS_DOCKER[case](host))
    sent = ours(tmp_path, host)
    assert sent is not None
    assert doubles.docker(tmp_path) == sent
    assert doubles.oras(tmp_path) != sent


@pytest.mark.parametrize("part", ["team-a", "v1/access-token"])
def test_docker_and_oras_send_a_login_for_a_part_to_the_whole_registry_and_this_library_does_not(
    tmp_path: Path, doubles: Doubles, part: str
) -> None:
    host = doubles.registry.address
    write(tmp_path, {"auths": {f"https://{host}/{part}": WRONG}})
    assert (doubles.docker(tmp_path), doubles.oras(tmp_path)) == ("wrong:pw", "wrong:pw")
    assert ours(tmp_path, host) is None
