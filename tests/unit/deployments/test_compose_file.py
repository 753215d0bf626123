"""What `deployments/compose.yaml` promises, read from the file; `tests/deep/test_compose.py` runs it."""

import json
import re
from typing import Any

import pytest
import yaml

from soci_pipeline.webhook.configuration import load
from soci_pipeline.webhook.events import Ignored
from soci_pipeline.webhook.rules import plan
from tests.support.documentation import REPOSITORY
from tests.support.webhook import generic_push

FOLDER = REPOSITORY / "deployments"
TEXT = (FOLDER / "compose.yaml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = sorted(set(SERVICES) - {"database"})


def test_every_lasting_service_has_a_health_check_and_is_started_again() -> None:
    lasting = {name: service for name, service in SERVICES.items() if name != "setup"}
    assert {service["restart"] for service in lasting.values()} == {"unless-stopped"}
    assert all(service["healthcheck"]["test"] for service in lasting.values())
    assert SERVICES["setup"]["restart"] == "on-failure:3"


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_the_worker_image_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == "${SOCI_WORKER_IMAGE:-soci-pipeline/worker:local}"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "ports" not in service
    if name == "worker":
        # Only to join the group of Docker's socket.
        assert (service["user"], service["cap_add"]) == ("0", ["SETUID", "SETGID"])
        assert "exec setpriv --reuid=soci-pipeline" in service["command"][0]
    else:
        assert service.keys().isdisjoint({"user", "cap_add"})


def test_what_listens_listens_on_loopback_and_the_database_on_no_port() -> None:
    assert "0.0.0.0" not in TEXT
    assert SERVICES["server"]["entrypoint"][-2:] == ["--host", "127.0.0.1"]
    for name in ("control", "worker"):
        assert SERVICES[name]["environment"]["PREFECT_WORKER_WEBSERVER_HOST"] == "127.0.0.1"
    assert SERVICES["database"]["network_mode"] == "none"


def test_data_are_in_named_volumes() -> None:
    mounted = [str(each).partition(":")[0] for service in SERVICES.values() for each in service["volumes"]]
    named = {each for each in mounted if not each.startswith("${")}
    assert named == set(DOCUMENT["volumes"])


def test_no_secret_is_in_the_files() -> None:
    for path in (FOLDER / "compose.yaml", *(FOLDER / "compose").iterdir()):
        assert not re.search(r"(?i)(password|token|api_key)\s*[:=]\s*\S", path.read_text()), path
    assert "token_hex" in SERVICES["setup"]["command"][0], "the receiver's secret is made at the first start"


def test_the_receiver_publishes_to_the_registry_of_the_stack() -> None:
    configuration = load(FOLDER / "compose" / "webhook.yaml")
    (source,) = configuration.sources
    event = source.parse({}, json.dumps(generic_push()).encode())
    assert not isinstance(event, Ignored)
    (planned,) = plan(configuration, source.name, event).runs
    assert planned.parameters["image"].startswith("127.0.0.1:5000/")
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    flow, _, name = planned.deployment.partition("/")
    entrypoint = f"flows/{flow.replace('-', '_')}.py:{flow.replace('-', '_')}"
    assert (entrypoint, name) in {(each["entrypoint"], each["name"]) for each in declared}
