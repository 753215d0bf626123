"""Registries on loopback as processes of their own: this project's, and a stand-in for Debian's."""

import json
from pathlib import Path

import pytest

from local_stack.ports import answers
from local_stack.registry import docker_registry, embedded_registry
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import StackError
from soci_pipeline.registry.client import RegistryClient
from tests.support.fake_programs import Programs
from tests.support.images import AMD64, image_layout
from tests.support.published import tag

# Serves by its configuration, and asks who one is, as a registry with logins does.
DOCKER_REGISTRY = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
host, port = json.load(open(sys.argv[2]))["http"]["addr"].split(":")
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401 if self.path == "/v2/" else 404)
        self.end_headers()
HTTPServer((host, int(port)), Handler).serve_forever()
"""


def _with_docker_registry(folder: Path, script: str) -> Toolchain:
    programs = Programs(folder / "bin")
    programs.folder.mkdir(parents=True)
    programs.add_python("docker-registry", script)
    return Toolchain(folder)


def test_the_embedded_registry_keeps_what_it_is_given_in_its_folder_and_ends_with_the_block(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout", AMD64)
    with embedded_registry(tmp_path / "registry") as address, RegistryClient(address) as client:
        tag(client, layout, layout.root(), "one")
        assert client.tags.list("team/app") == ("one",)
    assert not answers(f"http://{address}/v2/")
    digest = layout.root().digest.hex
    assert [path.name for path in (tmp_path / "registry" / "content").rglob(digest)] == [digest]


def test_debians_registry_is_told_to_serve_loopback_alone_and_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    tools = _with_docker_registry(tmp_path / "toolchain", DOCKER_REGISTRY)
    with docker_registry(tmp_path / "registry", toolchain=tools) as address:
        assert answers(f"http://{address}/v2/"), "asking who we are is an answer too"
        configuration = json.loads((tmp_path / "registry" / "registry.yml").read_text())
    assert not answers(f"http://{address}/v2/")
    assert address.startswith("127.0.0.1:")
    assert configuration["http"]["addr"] == address
    assert configuration["storage"]["delete"] == {"enabled": True}
    assert Path(configuration["storage"]["filesystem"]["rootdirectory"]).is_relative_to(tmp_path / "registry")


def test_a_registry_that_does_not_come_up_is_shown_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    tools = _with_docker_registry(tmp_path / "toolchain", 'sys.exit("configuration error: no storage")')
    with (
        pytest.raises(StackError, match=r"(?s)docker-registry ended while starting.*no storage"),
        docker_registry(tmp_path / "registry", toolchain=tools),
    ):
        pytest.fail("nothing serves")
