"""Automations on a real Prefect server."""

from pathlib import Path

import yaml

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.install import install


def results(api: PrefectApi, deployments: Path) -> set[str]:
    notes = install(api, deployments, notify_block=None, worker_python=None)
    return {note.result for note in notes if note.kind == "automations"}


def test_each_automation_of_a_name_is_brought_up_to_date_and_stays_as_it_is_switched(
    api: PrefectApi, deployments: Path
) -> None:
    path = deployments / "automations" / "crash-silent-runs.yaml"
    fields = yaml.safe_load(path.read_text())
    older = fields | {"trigger": fields["trigger"] | {"within": 90}}
    for enabled in (True, False):
        api.create_automation(older | {"enabled": enabled})

    assert "updated" in results(api, deployments)
    found = api.automations(fields["name"])
    assert [each["trigger"]["within"] for each in found] == [130, 130]
    assert {each["enabled"] for each in found} == {True, False}
    assert "unchanged" in results(api, deployments)
