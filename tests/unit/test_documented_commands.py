"""Commands of the README and of docs/ that need nothing but Python, run as they are written."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from local_stack.ports import free_port, listens, wait_until
from soci_pipeline.machine.programs import background, run
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import serving
from tests.support import webhook
from tests.support.documentation import REPOSITORY, blocks, documented
from tests.support.images import indexable_archive


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on the PATH, as `make install` and an activated environment have it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path / "registry") as address:
        yield address


def test_the_documented_commands_without_prefect_publish_an_indexed_image(
    installed: None, tmp_path: Path, address: str
) -> None:
    indexable_archive(tmp_path / "image.tar")
    block = documented("docs/commands.md", "soci-pipeline convert image.tar")
    said = block.run(tmp_path, replacing={"registry.example.com": address}).stdout
    assert "OK: verified" in said
    with RegistryClient(address) as client:
        assert client.tags.list("shop/web") == ("1.4",)


def test_the_documented_line_for_bash_completes_the_command(installed: None, tmp_path: Path) -> None:
    block = documented("docs/commands.md", "source <(soci-pipeline completion bash)")
    (line,) = block.commands()
    said = block.run(tmp_path, replacing={line: f"{line}; complete -p soci-pipeline"}).stdout
    assert said.endswith(" soci-pipeline\n")


def _documented_configuration(folder: Path) -> dict[str, object]:
    """The configuration that docs/triggers.md shows, with its secrets and its outbox in the folder of a test."""
    (shown,) = [
        each for each in blocks(REPOSITORY / "docs" / "triggers.md") if each.language == "yaml" and each.has("outbox:")
    ]
    for name in ("github-new", "github-old", "github-status"):
        (folder / name).write_bytes(webhook.SECRET)
    text = shown.script({"/run/secrets": str(folder), "/var/lib/soci-webhook": str(folder / "state")})
    configuration: dict[str, object] = yaml.safe_load(text)
    return configuration | {"listen": {"host": "127.0.0.1", "port": free_port()}}


def test_the_documented_configuration_is_checked_and_served_by_the_documented_commands(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_AUTH_STRING", "user:password")
    (tmp_path / "state").mkdir()
    configuration = _documented_configuration(tmp_path)
    (tmp_path / "webhook.yaml").write_text(yaml.safe_dump(configuration))
    push = webhook.github_push()
    push["repository"]["full_name"] = "acme/shop"
    push["commits"][0]["modified"] = ["services/shop/main.py"]
    (tmp_path / "event.json").write_text(json.dumps(push))
    check, serve = documented("docs/triggers.md", "soci-pipeline webhook check").commands()
    assert "shop -> publish-image/publish" in run(["bash", "-c", check], cwd=tmp_path, timeout=120).stdout

    port = int(configuration["listen"]["port"])  # type: ignore[index]
    log = tmp_path / "serve.log"
    with background(["bash", "-c", f"exec {serve}"], cwd=tmp_path, log=log) as child:
        wait_until(lambda: listens(port), what="the receiver", child=child, log=log, seconds=120)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == httpx.codes.OK
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) in {0, -signal.SIGTERM}
    assert all(json.loads(line) for line in log.read_text().splitlines())
