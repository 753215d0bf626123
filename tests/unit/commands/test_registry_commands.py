"""`push`, `inspect` and `registry serve` as they are called."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import OCI_MANIFEST, SOCI_INDEX_V1
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.server import ServerSettings, serving
from soci_pipeline.registry.settings import ClientSettings
from tests.support.certificates import certificate
from tests.support.images import image_layout, index_layout, only_manifest
from tests.support.registries import LOGIN, described


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    status = main([*argv, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "registry") as address:
        yield address


def test_push_answers_with_the_digest_and_the_bytes(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = index_layout(tmp_path / "layout")
    total = sum(node.size for node in layout.walk(layout.root()))
    for uploaded in (total, 0):
        status, found = answer(capsys, "push", str(layout.path), f"{address}/team/app:v1")
        assert (status, found["index"], found["tags"]) == (0, layout.root().digest, ["v1"])
        assert (found["bytes_uploaded"], found["bytes_skipped"]) == (uploaded, total - uploaded)


def test_push_of_one_image_answers_with_its_manifest(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = image_layout(tmp_path / "layout")
    status, found = answer(capsys, "push", str(layout.path), f"{address}/team/app")
    assert (status, found["manifest"], found["tags"]) == (0, layout.root().digest, [])
    assert main(["push", str(layout.path), f"{address}/team/app@{layout.root().digest}"]) == 0
    assert "tagged" not in capsys.readouterr().out
    assert main(["push", str(layout.path), f"{address}/team/app:v2"]) == 0
    assert f"team/app@{layout.root().digest}, tagged v2  0 B uploaded" in capsys.readouterr().out
    other = f"sha256:{'0' * 64}"
    assert main(["push", str(layout.path), f"{address}/team/app@{other}"]) == ExitCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("reference", "status"),
    [("UPPER", ExitCode.INVALID_INPUT), ("https://r.example.com/a", ExitCode.INVALID_INPUT)],
)
def test_push_to_what_is_no_reference_is_refused(tmp_path: Path, reference: str, status: ExitCode) -> None:
    assert main(["push", str(image_layout(tmp_path / "layout").path), reference]) == status


def test_push_of_what_is_no_layout_is_refused(tmp_path: Path, address: str) -> None:
    assert main(["push", str(tmp_path), f"{address}/team/app"]) == ExitCode.INVALID_INPUT


def test_push_takes_a_login_from_the_environment_and_an_authority_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    layout, own = image_layout(tmp_path / "layout"), certificate(tmp_path)
    settings = ServerSettings(login=LOGIN)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving(tmp_path / "r", settings=settings, tls_cert=own.certificate, tls_key=own.key) as address:
        push = ["push", str(layout.path), f"{address}/team/app:v1", "--ca-file", str(own.certificate)]
        assert main(push) == ExitCode.CREDENTIALS
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", LOGIN.username)
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", LOGIN.password.get_secret_value())
        assert main(push) == ExitCode.CREDENTIALS
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", address)
        assert main([*push, "--verbose"]) == 0
    assert LOGIN.password.get_secret_value() not in "".join(capfd.readouterr())


def test_a_certificate_that_is_not_trusted_comes_with_advice_about_authorities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    own, other = certificate(tmp_path), certificate(tmp_path / "other")
    with serving(tmp_path / "r", tls_cert=own.certificate, tls_key=own.key) as address:
        command = ["inspect", f"{address}/team/app:v1", "--ca-file", str(other.certificate)]
        assert main(command) == ExitCode.REGISTRY_UNREACHABLE
    assert "next: For a private certificate authority, set --ca-file" in capsys.readouterr().err


def test_a_loopback_registry_with_tls_comes_with_the_option_that_turns_it_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientSettings, "backoff", lambda *_: 0.01)
    own = certificate(tmp_path)
    with serving(tmp_path / "r", tls_cert=own.certificate, tls_key=own.key) as address:
        assert main(["inspect", f"{address}/team/app:v1"]) == ExitCode.REGISTRY_UNREACHABLE
        said = capsys.readouterr().err
        assert "next: A registry on loopback is used without TLS; to enable TLS, set --ca-file" in said
        assert said.count("trying again") < 5


def test_inspect_shows_platforms_layers_and_attestations(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = index_layout(tmp_path / "layout", attestations=True)
    with RegistryClient(address) as client:
        push_graph(layout, layout.root(), client, "team/app", tag="v1")
    status, found = answer(capsys, "inspect", f"{address}/team/app:v1")
    assert (status, found["index"], found["findings"]) == (0, layout.root().digest, [])
    assert [each["platform"] for each in found["platforms"]] == ["linux/amd64", "linux/arm64"]
    for each in found["platforms"]:
        assert len(each["layers"]) == 2
        assert len(each["attestations"]) == 1
        assert each["soci_index"] is None


def test_inspect_shows_a_v1_index_among_the_referrers(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = image_layout(tmp_path / "layout")
    manifest, root = only_manifest(layout), layout.root().plain
    config = layout.add_bytes(b"{}", SOCI_INDEX_V1)
    layer = manifest.layers[0]
    data = b"a zTOC, as far as inspect can tell"
    ztoc = layout.add_bytes(data, described(data, "application/octet-stream").media_type).annotated(
        annotations={"com.amazon.soci.image-layer-digest": str(layer.digest)}
    )
    soci = layout.add_document(manifest.replaced(config=config, layers=(ztoc,), subject=root))
    with RegistryClient(address) as client:
        push_graph(layout, root, client, "team/app", tag="v1", extra_roots=[soci])
    status, found = answer(capsys, "inspect", f"{address}/team/app:v1")
    (image,) = found["platforms"]
    assert (status, image["soci_index"], image["soci_version"]) == (0, soci.digest, "v1")
    assert [each["ztoc"] for each in image["layers"]] == [ztoc.digest, None]
    assert [each["artifact_type"] for each in found["referrers"]] == [SOCI_INDEX_V1]
    assert main(["inspect", f"{address}/team/app:v1"]) == 0
    assert f"SOCI index v1  {soci.digest}" in capsys.readouterr().out


def test_inspect_of_nothing_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"{address}/team/app:v1"]) == ExitCode.REGISTRY_REFUSED
    assert "next: " in capsys.readouterr().err
    assert main(["inspect", f"{address}/team/app"]) == ExitCode.INVALID_INPUT


def _serve(tmp_path: Path, *options: str) -> list[str]:
    folder = str(tmp_path / "served")
    return [sys.executable, "-m", "soci_pipeline", "registry", "serve", folder, "--port", "0", *options]


@contextmanager
def served(tmp_path: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    argv = _serve(tmp_path, *options)
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as child:
        assert child.stderr is not None
        try:
            yield child.stderr.readline().split()[-1], child
        finally:
            child.kill()


def test_a_served_folder_takes_a_push_and_ends_well_when_interrupted(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    with served(tmp_path) as (address, child):
        assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == 0
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_large_repository_is_a_complete_layout_when_the_server_has_ended_or_the_next_one_starts(
    tmp_path: Path, number: signal.Signals
) -> None:
    layout = Layout.create(tmp_path / "served" / "app")
    layout.set_roots(described(str(each).encode(), OCI_MANIFEST) for each in range(200))
    image = image_layout(tmp_path / "layout")
    with served(tmp_path) as (address, child):
        assert main(["push", str(image.path), f"{address}/app:v1"]) == 0
        child.send_signal(number)
        child.wait(20)
    if number == signal.SIGKILL:
        with serving(tmp_path / "served"):
            assert len(layout.roots()) == 201
    assert len(layout.roots()) == 201
    assert not (layout.path / ".journal").exists()


_NO_LOGIN = "can pull, push and delete without a login; set --username and --password-file"
_NO_TLS = "the network unencrypted; set --tls-cert and --tls-key"


def _warnings(tmp_path: Path, *options: str) -> str:
    """What a folder that is served says before its address."""
    with subprocess.Popen(_serve(tmp_path, *options), stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        said = list(takewhile(lambda line: not line.startswith("listening on "), child.stderr))
        child.kill()
    return "".join(said)


def test_a_folder_that_others_can_reach_says_what_is_open_and_how_to_close_it(tmp_path: Path) -> None:
    password, own = tmp_path / "password", certificate(tmp_path)
    password.write_text("opensesame\n")
    login = ["--username", "robot", "--password-file", str(password)]
    tls = ["--tls-cert", str(own.certificate), "--tls-key", str(own.key)]
    found = []
    for options in ([], login, tls, [*login, *tls]):
        said = _warnings(tmp_path, "--host", "0.0.0.0", "--quiet", *options)
        assert "opensesame" not in said
        found.append((_NO_LOGIN in said, _NO_TLS in said, said.count("\n")))
    assert found == [(True, True, 2), (False, True, 1), (True, False, 1), (False, False, 0)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_folder_on_loopback_warns_of_nothing(tmp_path: Path, host: str) -> None:
    assert _warnings(tmp_path, "--host", host) == ""


def test_a_program_is_told_in_json_where_a_folder_is_served(tmp_path: Path) -> None:
    with subprocess.Popen(_serve(tmp_path, "--json"), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        answer = json.loads("".join(iter(child.stdout.readline, "}\n")) + "}")
        with RegistryClient(answer["address"]) as client:
            client.ping()
        child.send_signal(signal.SIGINT)
        assert (child.stdout.read(), child.wait(20)) == ("", 0)


def test_an_address_that_cannot_be_had_leaves_no_folder(tmp_path: Path) -> None:
    command = ["registry", "serve", str(tmp_path / "served"), "--host", "203.0.113.9"]
    assert main(command) == ExitCode.STACK
    assert not (tmp_path / "served").exists()


def test_a_served_folder_can_ask_for_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, password = image_layout(tmp_path / "layout"), tmp_path / "password"
    password.write_text("opensesame\n")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with served(tmp_path, "--username", "robot", "--password-file", str(password), "--bearer") as (address, _):
        assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == ExitCode.CREDENTIALS
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_USERNAME", "robot")
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY_PASSWORD", "opensesame")
        monkeypatch.setenv("SOCI_PIPELINE_REGISTRY", address)
        assert main(["push", str(layout.path), f"{address}/team/app:v1"]) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--username", "robot"],
        ["--bearer"],
        ["--tls-cert", "x"],
        ["--username", "u", "--password-file", "/nonexistent"],
    ],
)
def test_options_of_serve_that_do_not_fit_together_are_refused(tmp_path: Path, options: list[str]) -> None:
    assert main(["registry", "serve", str(tmp_path), "--port", "0", *options]) == ExitCode.INVALID_INPUT


def test_a_password_file_that_is_not_there_is_told_from_an_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "password"
    argv = ["registry", "serve", str(tmp_path), "--port", "0", "--username", "u", "--password-file", str(file)]
    assert main(argv) == ExitCode.INVALID_INPUT
    assert f"--password-file {file} cannot be read: No such file or directory" in capsys.readouterr().err
    file.write_text("")
    assert main(argv) == ExitCode.INVALID_INPUT
    assert "has no password in its first line" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["\n", "\nopensesame\n", " \t\nopensesame\n", "\r\nopensesame\r\n"])
@pytest.mark.parametrize("options", [[], ["--bearer"]], ids=["Basic", "Bearer"])
def test_a_password_file_with_an_empty_first_line_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, options: list[str]
) -> None:
    file = tmp_path / "password"
    file.write_bytes(text.encode())
    argv = ["registry", "serve", str(tmp_path / "served"), "--port", "0", "--username", "u", "--password-file"]
    assert main([*argv, str(file), *options]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert f"--password-file {file} has no password in its first line" in said
    assert "next: " in said
    assert "opensesame" not in said


def test_a_second_registry_over_the_same_folder_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path):
        assert main(["registry", "serve", str(tmp_path / "served"), "--port", "0"]) == ExitCode.STACK
    said = capsys.readouterr().err
    assert f"{tmp_path / 'served'} is already served by another registry" in said
    assert "next: Stop that registry or use another folder" in said


def test_an_action_that_is_left_out_is_named_as_the_help_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "Missing argument 'serve'" in said
    assert "Usage: soci-pipeline registry [OPTIONS] serve FOLDER\n" in said
    assert main(["registry", "serve"]) == ExitCode.USAGE
    assert "Missing argument 'FOLDER'" in capsys.readouterr().err


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("x")
    assert main(["registry", "serve", str(tmp_path / "notes"), "--port", "0"]) == ExitCode.INVALID_INPUT
    assert "is a file" in capsys.readouterr().err


def test_an_address_that_cannot_be_had_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["registry", "serve", str(tmp_path), "--port", port]) == ExitCode.STACK
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "next: " in said
    assert main(["registry", "serve", str(tmp_path), "--port", "65536"]) == ExitCode.INVALID_INPUT
    assert "65536 is not a valid port" in capsys.readouterr().err


def test_a_registry_without_a_folder_is_an_error_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "serve"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "Missing argument 'FOLDER'. Add the folder for the repositories, for example: " in said
    assert "soci-pipeline registry serve ~/soci-registry" in said
