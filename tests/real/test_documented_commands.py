"""Commands of docs/ that need programs of the machine; those that need a server of their own are in the deep tier."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from soci_pipeline.machine.programs import find, run
from soci_pipeline.webhook.configuration import load
from soci_pipeline.webhook.service import serving as receiving
from tests.support import webhook
from tests.support.documentation import REPOSITORY, blocks, documented


def test_the_documented_way_to_sign_an_event_with_a_shell_is_taken(
    tmp_path: Path, or_skip: Callable[[], AbstractContextManager[None]]
) -> None:
    with or_skip():
        for program in ("openssl", "curl", "base64"):
            find(program)
    (tmp_path / "ci").write_bytes(webhook.SECRET)
    shutil.copyfile(tmp_path / "ci", tmp_path / "secret")
    (tmp_path / "event.json").write_text(json.dumps(webhook.generic_push()))
    source = {"kind": "generic", "name": "ci", "secrets": [{"file": str(tmp_path / "ci")}]}
    settings = webhook.configuration(tmp_path, sources=[source], rules=[webhook.rule(sources=["ci"])])
    with receiving(settings) as (address, service):
        block = documented("docs/triggers.md", "id=msg_$(openssl rand -hex 8)")
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        block.run(tmp_path, replacing={"https://hooks.example.com": address}, env=environment)
        # Prefect does not answer here, so the run that was stored may be on its way to it at any moment.
        assert sum(service.outbox.counts().values()) == 1


def test_the_documented_push_is_signed_as_github_signs_and_matches_the_pages_rule(
    tmp_path: Path, or_skip: Callable[[], AbstractContextManager[None]]
) -> None:
    with or_skip():
        for program in ("openssl", "curl", "git"):
            find(program)
    run(["git", "init", "--quiet", "source"], cwd=tmp_path)
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    run(["git", "-C", "source", *who, "commit", "--quiet", "--allow-empty", "--message", "The first"], cwd=tmp_path)
    (tmp_path / "webhook-secret").write_bytes(webhook.SECRET + b"\n")
    (shown,) = [each for each in blocks(REPOSITORY / "docs" / "push-to-image.md") if each.language == "yaml"]
    text = shown.script({"/var/lib/soci-pipeline": str(tmp_path), "4300": "0", "127.0.0.1:4200/api": "127.0.0.1:9/api"})
    (tmp_path / "webhook.yaml").write_text(text)
    with receiving(load(tmp_path / "webhook.yaml")) as (address, service):
        replacing = {
            "http://127.0.0.1:4300": address,
            "docker compose --file deployments/compose.yaml exec -T receiver cat /var/lib/soci-pipeline/": "cat ",
            'git ls-remote "$source"': "git ls-remote source",
        }
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        block = documented("docs/push-to-image.md", "source=https://git.example.com/acme/site.git")
        answer = json.loads(block.run(tmp_path, replacing=replacing, env=environment).stdout)
        assert answer["status"] == "stored"
        assert sum(service.outbox.counts().values()) == 1
