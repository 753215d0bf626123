"""Docker's configuration in its odd forms: which login a registry gets.

What docker 26.1, oras 1.2 and skopeo 1.9 do with many of these files was tried; tests/real/test_docker_logins.py asks
the first two again.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import CredentialsRefused, DeadlineExceeded, InvalidInput, SociPipelineError, ToolMissing
from soci_pipeline.registry import credential_helper
from soci_pipeline.registry.auth import DockerConfig, docker_config
from tests.support.credential_helpers import install_helpers
from tests.support.programs import write_program
from tests.support.registries import shown

HOST = "r.example.com:5000"
HUB = "https://index.docker.io/v1/"


def entry(user: str, password: str = "pw", **fields: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()} | fields


RIGHT, WRONG = entry("right"), entry("wrong")


@dataclass(frozen=True)
class Case:
    """A configuration, and the login that a registry gets of it."""

    says: str
    config: dict[str, Any]
    login: str | None = "right:pw"
    registry: str = HOST


def auths(says: str, entries: dict[str, Any], login: str | None = "right:pw", registry: str = HOST) -> Case:
    return Case(says, {"auths": entries}, login, registry)


KEYS = [
    auths("the host itself goes before a part of it", {HOST: RIGHT, f"{HOST}/team-b": WRONG}),
    auths("the host itself goes before a URL of it", {HOST: RIGHT, f"https://{HOST}/v1/": WRONG}),
    auths("the host itself goes before the same in other letters", {HOST: RIGHT, HOST.upper(): WRONG}),
    auths("of two URLs https goes first", {f"https://{HOST}": RIGHT, f"http://{HOST}": WRONG}),
    auths("of two URLs v1 goes first", {f"https://{HOST}/v1/": RIGHT, f"https://{HOST}/v2/": WRONG}),
    auths("a part of the host alone is for nobody else", {f"{HOST}/team-b": WRONG, f"{HOST}/team-a": WRONG}, None),
    auths("another port is another registry", {"r.example.com": WRONG, "r.example.com:5001": WRONG}, None),
    auths("the port of https is part of the name", {"r.example.com:443": WRONG}, None, "r.example.com"),
    auths("a longer host is another one", {f"evil.{HOST}": WRONG, f"{HOST}.evil.example": WRONG}, None),
    auths("a user in the URL is another key", {f"https://u@{HOST}": WRONG}, None),
    auths("an empty entry of the host itself counts", {HOST: {}, f"https://{HOST}": RIGHT}, None),
    auths(
        "the hub's own key goes first", {HUB: RIGHT, "docker.io": WRONG, "index.docker.io": WRONG}, registry="docker.io"
    ),
    auths(
        "a browser login's tokens are not the login", {f"{HUB}access-token": WRONG, HUB: RIGHT}, registry="docker.io"
    ),
    auths("a browser login's tokens alone are no login", {f"{HUB}refresh-token": WRONG}, None, "docker.io"),
    auths("the hub is not its website", {"https://hub.docker.com": WRONG}, None, "docker.io"),
]
SPELLINGS = [
    f"{scheme}{HOST}{path}" for scheme in ("", "https://", "http://") for path in ("", "/", "/v1/", "/v2/", "/v2")
]
ENTRIES = [
    auths("colons belong to the password", {HOST: entry("right", "a:b:c:")}, "right:a:b:c:"),
    auths("NUL around the password is padding", {HOST: entry("right", "\0pw\0\0")}),
    auths("line breaks in base64 are ignored", {HOST: {"auth": f"{RIGHT['auth'][:4]}\r\n{RIGHT['auth'][4:]}\n"}}),
    auths("a password may hold any character", {HOST: entry("right", "pä \u20ac")}, "right:pä \u20ac"),
    auths("user and password may stand alone", {HOST: {"username": "right", "password": "pw"}}),
    auths("auth goes before user and password", {HOST: RIGHT | {"username": "wrong", "password": "x"}}),
    auths("an empty auth leaves user and password", {HOST: {"auth": "", "username": "right", "password": "pw"}}),
    auths("an entry may say nothing", {HOST: {}}, None),
    auths("an entry may have an e-mail address alone", {HOST: {"email": "a@b.example"}}, None),
    auths("a user without a password is no login", {HOST: {"username": "other"}}, None),
    auths("a user with an empty password is no login", {HOST: entry("other", "")}, None),
    auths("an entry may be null", {HOST: None}, None),
    auths("an identity token goes before the pair", {HOST: entry("0000", "", identitytoken="t")}, "identity token t"),
    auths("an identity token needs no pair", {HOST: {"auth": "Og==", "identitytoken": "t"}}, "identity token t"),
    auths(
        "a registry token goes before all", {HOST: entry("u", registrytoken="r", identitytoken="t")}, "registry token r"
    ),
    auths("letters of another case are the same field", {HOST: {"identityToken": "t"}}, "identity token t"),
    auths("a broken entry of another host does no harm", {HOST: RIGHT, "x.example": {"auth": "%"}, "y.example": "?"}),
    Case("letters of another case are the same section", {"Auths": {HOST: RIGHT}}),
    Case("sections may be null", {"auths": None, "credHelpers": None, "credsStore": None}, None),
    Case("what else is in the file does no harm", {"auths": {HOST: RIGHT}, "detachKeys": 5, "proxies": []}),
]
KEPT = "helper:kept"
HELPERS = [
    Case("the helper of the registry goes first", {"credHelpers": {HOST: "ok"}, "credsStore": "failing"}, KEPT),
    Case("a helper goes before an entry", {"credsStore": "ok", "auths": {HOST: WRONG}}, KEPT),
    Case(
        "a helper of another registry is not asked", {"credHelpers": {"x.example": "failing"}, "auths": {HOST: RIGHT}}
    ),
    Case("a helper for a part of the registry is not asked", {"credHelpers": {f"{HOST}/team": "failing"}}, None),
    Case("a helper's key may have other letters", {"credHelpers": {HOST.upper(): "ok"}}, KEPT),
    Case("the setting may have other letters", {"credSstore": "ok"}, KEPT),
    Case(
        "an empty helper switches the store off",
        {"credHelpers": {HOST: ""}, "credsStore": "ok", "auths": {HOST: RIGHT}},
    ),
    Case("an empty store is no store", {"credsStore": "", "auths": {HOST: RIGHT}}),
    Case("a store may know the registry by its URL alone", {"credsStore": "url-only"}, KEPT),
    Case("a store may know the hub by its URL alone", {"credsStore": "url-only"}, KEPT, "docker.io"),
    Case("what a helper says on standard error does no harm", {"credsStore": "noisy"}, KEPT),
    Case("what follows the answer does no harm", {"credsStore": "trailing"}, KEPT),
    Case("fields of an answer may have other letters", {"credsStore": "lower-case"}, KEPT),
    Case("the user <token> means an identity token", {"credsStore": "token"}, "identity token kept"),
    *(
        Case(f"an empty answer means nothing ({name})", {"credsStore": name}, None)
        for name in ("empty", "without-user", "without-secret")
    ),
    Case(
        "a user's name beside a helper is no login",
        {"credHelpers": {HOST: "absent"}, "auths": {HOST: {"username": "u"}}},
        None,
    ),
    *(
        Case(f"not found is no failure ({name})", {"credsStore": name}, None)
        for name in ("absent", "absent-noisy", "absent-on-stderr", "absent-status-0", "absent-status-5")
    ),
    Case("not found leaves it to the entry", {"credsStore": "absent-noisy", "auths": {HOST: RIGHT}}),
    Case("a failing helper leaves it to the entry", {"credsStore": "failing", "auths": {HOST: RIGHT}}),
    Case("a missing helper leaves it to the entry", {"credsStore": "nowhere", "auths": {HOST: RIGHT}}),
]


@pytest.fixture(autouse=True)
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install_helpers(tmp_path, monkeypatch)


def configuration(folder: Path, text: str) -> DockerConfig:
    path = folder / "config.json"
    path.write_text(text)
    return DockerConfig(path)


@pytest.mark.parametrize("case", [*KEYS, *ENTRIES, *HELPERS], ids=lambda case: case.says)
@pytest.mark.parametrize("order", ["as written", "reversed"])
def test_the_login_for_a_registry_is_the_one_that_its_name_finds_in_any_order(
    tmp_path: Path, case: Case, order: str
) -> None:
    turned = {
        name: dict(reversed(section.items())) if isinstance(section, dict) and order == "reversed" else section
        for name, section in case.config.items()
    }
    found = configuration(tmp_path, json.dumps(turned)).credentials_for(case.registry)
    assert shown(found) == case.login


@pytest.mark.parametrize("key", SPELLINGS)
def test_a_registry_is_found_under_each_spelling_of_its_name(tmp_path: Path, key: str) -> None:
    for spelled in (key, key.replace("r.example", "R.Example")):
        docker = configuration(tmp_path, json.dumps({"auths": {f"{HOST}/team-b": WRONG, spelled: RIGHT}}))
        assert shown(docker.credentials_for(HOST)) == "right:pw"
        assert shown(docker.credentials_for(HOST.upper())) == "right:pw"


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize("form", ["{}", "https://{}", "https://{}/v1/", "https://{}/v2/"])
def test_docker_hub_is_found_under_each_of_its_names_and_urls(tmp_path: Path, host: str, form: str) -> None:
    docker = configuration(tmp_path, json.dumps({"auths": {form.format(host): RIGHT}}))
    for asked in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        assert shown(docker.credentials_for(asked)) == "right:pw"
    assert docker.credentials_for("docker.io.example.com") is None


@pytest.mark.parametrize(
    ("text", "login"),
    [
        ("", None),
        (" \n", None),
        ("null", None),
        ("{}", None),
        (json.dumps({"auths": {HOST: RIGHT}}) + "\n{}", "right:pw"),
        ("\ufeff" + json.dumps({"auths": {HOST: RIGHT}}), "right:pw"),
    ],
    ids=["empty", "blank", "null", "no sections", "followed by more", "with a byte order mark"],
)
def test_a_file_that_docker_or_an_editor_may_leave_is_read(tmp_path: Path, text: str, login: str | None) -> None:
    docker = configuration(tmp_path, text)
    docker.check()
    assert shown(docker.credentials_for(HOST)) == login


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not readable"),
        ('{"auths": {}, /**/}', "is not readable"),
        ("[" * 100_000, "is not readable"),
        ("[]", "is not a JSON object"),
        ('"marked-secret"', "is not a JSON object"),
        ('{"auths": ["marked-secret"]}', "auths in .* must be a JSON object, not list"),
        ('{"credHelpers": "marked-secret"}', "credHelpers in .* must be a JSON object, not str"),
        ('{"credsStore": 5}', "credsStore in .* must be a string, not int"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong_and_nothing_of_it(tmp_path: Path, text: str, said: str) -> None:
    docker = configuration(tmp_path, text)
    calls: tuple[Callable[[], object], ...] = (docker.check, partial(docker.credentials_for, HOST))
    for call in calls:
        with pytest.raises(InvalidInput, match=said) as caught:
            call()
        assert "config.json" in caught.value.reason
        assert caught.value.advice
        assert "marked-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "broken",
    [
        "marked-secret",
        {"auth": "marked-secret?"},
        {"auth": 5},
        {"auth": base64.b64encode(b"marked-secret").decode()},
        {"auth": base64.b64encode(b":marked-secret").decode()},
        {"auth": base64.b64encode(b"marked-secret:\xe4").decode()},
    ],
    ids=["not an object", "not base64", "a number", "without a colon", "without a user", "not UTF-8"],
)
def test_a_broken_entry_of_the_registry_is_named_without_its_contents(tmp_path: Path, broken: object) -> None:
    docker = configuration(tmp_path, json.dumps({"auths": {HOST: broken}}))
    with pytest.raises(InvalidInput, match=f"entry for {HOST} in .*config.json is not") as caught:
        docker.credentials_for(HOST)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failing", "failed with status 3"),
        ("killed", "failed with status -9"),
        *(
            (name, "returned no valid credentials")
            for name in ("silent", "garbage", "leading", "null", "list", "numbers", "half", "deep")
        ),
        *((name, "printed more than 1048576 bytes") for name in ("huge", "endless", "endless-on-stderr")),
    ],
)
def test_a_helper_that_fails_is_named_with_what_it_did_and_nothing_that_it_printed(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(CredentialsRefused) as caught:
        configuration(tmp_path, json.dumps({"credsStore": name})).credentials_for(HOST)
    assert caught.value.reason == f"the credential helper docker-credential-{name} {said} for {HOST}"
    assert f"echo {HOST} | docker-credential-{name} get" in str(caught.value.advice)
    assert "marked-secret" not in str(caught.value)


def test_a_helper_that_hangs_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_helper, "_SECONDS", 0.3)
    write_program(tmp_path / "helpers", "docker-credential-stuck", "sleep 60")
    docker = configuration(tmp_path, json.dumps({"credsStore": "stuck"}))
    with pytest.raises(DeadlineExceeded, match=r"docker-credential-stuck did not answer within 0.3 s for r\.example"):
        docker.credentials_for(HOST)


@pytest.mark.parametrize("content", [b"MZ\x90\x00", b"#!/no/such/interpreter\n"], ids=["of Windows", "a script"])
def test_a_helper_that_cannot_be_started_is_named(tmp_path: Path, content: bytes) -> None:
    program = tmp_path / "helpers" / "docker-credential-desktop.exe"
    program.write_bytes(content)
    program.chmod(0o755)
    with pytest.raises(CredentialsRefused, match=r"docker-credential-desktop\.exe cannot be started for r\.example"):
        configuration(tmp_path, json.dumps({"credsStore": "desktop.exe"})).credentials_for(HOST)
    docker = configuration(tmp_path, json.dumps({"credsStore": "desktop.exe", "auths": {HOST: RIGHT}}))
    assert shown(docker.credentials_for(HOST)) == "right:pw"


def test_a_missing_helper_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="docker-credential-nowhere is not on the PATH") as caught:
        configuration(tmp_path, json.dumps({"credsStore": "nowhere"})).credentials_for(HOST)
    assert "remove it from credsStore or credHelpers" in str(caught.value.advice)


def test_the_entry_that_counts_where_a_helper_fails_is_logged_without_its_contents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docker = configuration(tmp_path, json.dumps({"credsStore": "failing", "auths": {HOST: RIGHT}}))
    assert shown(docker.credentials_for(HOST)) == "right:pw"
    assert "docker-credential-failing failed with status 3" in caplog.text
    assert "using the entry of" in caplog.text
    assert not any(secret in caplog.text for secret in ("marked-secret", RIGHT["auth"]))


def test_a_helper_is_asked_with_the_name_that_docker_uses_first(tmp_path: Path, helpers: Path) -> None:
    docker = configuration(tmp_path, json.dumps({"credsStore": "absent"}))
    docker.credentials_for(HOST)
    docker.credentials_for("docker.io")
    asked = [line.removeprefix("absent get ") for line in helpers.read_text().splitlines()]
    assert asked[:3] == [HOST, f"https://{HOST}", HUB]


def test_a_configuration_variable_that_names_the_file_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration(tmp_path, "{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config.json"))
    with pytest.raises(InvalidInput, match="is not in a folder") as caught:
        DockerConfig().credentials_for(HOST)
    assert "Set DOCKER_CONFIG to the folder" in str(caught.value.advice)


def test_a_configuration_that_is_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InvalidInput, match=r"config\.json is not readable"):
        DockerConfig(tmp_path / "config.json").credentials_for(HOST)


def test_without_the_variable_the_configuration_is_in_the_home_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (None, ""):
        monkeypatch.delenv("DOCKER_CONFIG", raising=False)
        if value is not None:
            monkeypatch.setenv("DOCKER_CONFIG", value)
        assert docker_config() == tmp_path / ".docker" / "config.json"


def test_every_failure_of_a_store_is_an_error_of_the_library(tmp_path: Path) -> None:
    for name in ("failing", "garbage", "nowhere"):
        with pytest.raises(SociPipelineError):
            configuration(tmp_path, json.dumps({"credHelpers": {HOST: name}})).credentials_for(HOST)
