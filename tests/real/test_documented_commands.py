"""Commands of docs/ that need programs of the machine; those that need a server of their own are in the deep tier."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from soci_pipeline.machine.programs import find
from soci_pipeline.webhook.service import serving as receiving
from tests.support import webhook
from tests.support.documentation import documented


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
