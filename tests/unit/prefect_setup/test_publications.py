"""The plan for a publications file, its text, and what it rejects, without a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_setup.publication_plan import Action, PublicationsPlan, declared_names, plan
from soci_pipeline.prefect_setup.publication_state import RECORD, Record, own_schedule, schedule_fields, state_of_server
from soci_pipeline.prefect_setup.publications import lines, report
from soci_pipeline.prefect_setup.three_way import OnConflict
from soci_pipeline.publications.file import PublicationsFile, load

ROOT = Path(__file__).resolve().parents[3]
RELEASE: dict[str, Any] = {
    "name": "release",
    "tags": [],
    "entrypoint": "flows/publish_image.py:publish_image",
    "path": ".",
    "pull_steps": None,
    "version": None,
    "parameter_openapi_schema": {"type": "object"},
}
PARAMETERS = {
    "image": "registry.example.com/acme/web",
    "source": "https://git.example.com/web.git",
    "ref": "main",
}
APPLIED: dict[str, Any] = {
    "parameters": PARAMETERS,
    "description": "The web.",
    "schedule": {"cron": "1 2 * * *", "timezone": "UTC", "active": True},
}


def file(folder: Path, **changes: Any) -> PublicationsFile:
    entry = {"name": "web", "description": "The web.", "schedule": "1 2 * * *"} | PARAMETERS | changes
    path = folder / "publications.yaml"
    top = {"version": 1, "owner": "acme", "publications": [entry]}
    path.write_text(yaml.safe_dump(top, sort_keys=False))
    return load(path)


def on_server(parameters: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The deployment of the publication as the server has it."""
    schema = {"type": "object", RECORD: Record("web", "acme", APPLIED).as_json()}
    schedule = {"cron": "1 2 * * *", "timezone": "UTC", "day_or": True}
    found = {
        "id": "an-id",
        "name": "web",
        "tags": ["soci-pipeline", "publications:acme"],
        "description": "The web.",
        "parameters": PARAMETERS | dict(parameters or {}),
        "schedules": [{"id": "s", "slug": "publications-file", "active": True, "schedule": schedule, "parameters": {}}],
        "parameter_openapi_schema": schema,
        "global_concurrency_limit": None,
        "concurrency_options": None,
    }
    return RELEASE | found | changes


def planned(
    publications: PublicationsFile,
    *existing: dict[str, Any],
    prefer: OnConflict = OnConflict.STOP,
    remove: bool = False,
) -> PublicationsPlan:
    return plan(
        publications, {each["name"]: each for each in (RELEASE, *existing)}, ["release"], prefer=prefer, remove=remove
    )


def text(found: PublicationsPlan, *, dry_run: bool = False) -> list[str]:
    return list(lines(found, dry_run=dry_run))


def test_what_agrees_is_unchanged(tmp_path: Path) -> None:
    found = planned(file(tmp_path), on_server())
    assert text(found) == text(found, dry_run=True) == ["publish-image/web: unchanged"]
    assert report(found, dry_run=True) == {
        "dry_run": True,
        "publications": {"publish-image/web": {"action": "unchanged"}},
    }


def test_the_plan_says_what_changes_and_what_is_kept(tmp_path: Path) -> None:
    server = on_server({"verify": "all", "target": None, "pull": False})
    found = planned(file(tmp_path, ref="release", tags=["latest"]), server)
    assert text(found, dry_run=True) == [
        "publish-image/web: would be updated",
        '  parameters.ref: "main" -> "release"',
        '  parameters.tags: nothing -> ["latest"]',
        '  parameters.verify: kept "all" of the server',
    ]


def test_a_conflict_is_listed_with_all_three_values(tmp_path: Path) -> None:
    publications, server = file(tmp_path, ref="release"), on_server({"ref": "hotfix"})
    sides = '  parameters.ref: applied last "main", file "release", server "hotfix"'
    assert text(planned(publications, server)) == ["publish-image/web: conflict, nothing was changed", sides]
    chosen = planned(publications, server, prefer=OnConflict.FILE)
    assert text(chosen) == ["publish-image/web: updated", f'{sides} -> "release"']
    assert text(planned(publications, server, prefer=OnConflict.SERVER))[1] == f'{sides} -> "hotfix"'


def test_a_deployment_without_a_record_takes_over_what_only_one_side_has(tmp_path: Path) -> None:
    """As one that is adopted by its tag."""
    server = on_server({"ref": "hotfix", "verify": "all"}, parameter_openapi_schema={"type": "object"})
    (each,) = planned(file(tmp_path), server).deployments
    assert [one.path for one in each.merge.conflicts] == [("parameters", "ref")]
    assert each.merge.value["parameters"]["verify"] == "all"


def test_a_record_of_another_shape_counts_as_none() -> None:
    shapes: tuple[Any, ...] = (None, 1, [], {}, {"applied": 1})
    for damaged in shapes:
        assert Record.of({"parameter_openapi_schema": {RECORD: damaged}}) is None
    assert Record.of({"parameter_openapi_schema": None}) is None


def test_only_what_the_file_made_and_no_copy_of_it_is_removed(tmp_path: Path) -> None:
    schema = on_server()["parameter_openapi_schema"]
    old = {"parameter_openapi_schema": schema | {RECORD: Record("old", "acme", {}).as_json()}}
    existing = (
        on_server(),
        on_server(name="old", **old),
        on_server(name="copy-of-old", **old),
        on_server(name="others", tags=["publications:else"]),
        on_server(name="by-hand", parameter_openapi_schema={}),
    )
    found = planned(file(tmp_path), *existing)
    assert text(found)[1:] == ["publish-image/old: no longer in the file; --remove deletes it"]
    found = planned(file(tmp_path), *existing, remove=True)
    assert [(each.name, each.action) for each in found.deployments[1:]] == [("old", Action.REMOVE)]
    assert text(found, dry_run=True)[1:] == ["publish-image/old: would be removed"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tags": []}, "is on the server and was not made from a publications file; choose another name, or give"),
        ({"tags": ["publications:else"]}, "belongs to another file (publications:else); choose another name"),
    ],
)
def test_a_name_that_somebody_else_has_is_rejected(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    publications = file(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        planned(publications, on_server(**changes))
    assert expected in caught.value.reason
    assert f"{tmp_path}/publications.yaml:4: publication web: name: publish-image/web" in caught.value.reason


def test_a_name_of_prefect_yaml_is_rejected_even_where_it_is_not_deployed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="publish-image/web is a deployment of the project itself"):
        plan(file(tmp_path), {"release": RELEASE}, ["release", "web"])


def test_the_projects_own_deployment_is_found_in_prefect_yaml(tmp_path: Path) -> None:
    assert len(declared_names(ROOT)) == 1
    for wrong in ("", "[]", "deployments: 1", "deployments: [1]", "deployments: []", "{", "deployments: [{name: a}]"):
        (tmp_path / "prefect.yaml").write_text(wrong)
        with pytest.raises(InvalidInput, match=r"prefect.yaml"):
            declared_names(tmp_path)


def test_a_schedule_of_another_kind_that_somebody_chose_is_kept(tmp_path: Path) -> None:
    interval = {"interval": 3600.0, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}
    server = on_server()
    schedule = server["schedules"][0] | {"schedule": interval}
    found = planned(file(tmp_path), server | {"schedules": [schedule]})
    assert found.deployments[0].action is Action.NOTHING
    kept = {one.path for one in found.deployments[0].merge.kept}
    assert kept == {("schedule", name) for name in ("cron", "timezone", "other")}
    stopped = planned(file(tmp_path, schedule="5 5 * * *"), server | {"schedules": [schedule]})
    assert stopped.deployments[0].action is Action.STOP
    chosen = planned(file(tmp_path, schedule="5 5 * * *"), server | {"schedules": [schedule]}, prefer=OnConflict.FILE)
    assert schedule_fields(chosen.deployments[0].merge.value["schedule"])["schedule"]["cron"] == "5 5 * * *"
    assert "interval" not in schedule_fields(chosen.deployments[0].merge.value["schedule"])["schedule"]


def test_other_schedules_of_a_deployment_are_not_the_files() -> None:
    server = on_server()
    ours, other = server["schedules"][0], server["schedules"][0] | {"slug": "mine"}
    assert own_schedule(server | {"schedules": [other, ours]}) == ours
    assert own_schedule(server | {"schedules": [other]}) is None
    assert own_schedule(server | {"schedules": [other | {"slug": None}, other]}) is None
    assert "schedule" not in state_of_server(server | {"schedules": []})


def test_a_limit_is_read_with_what_happens_above_it() -> None:
    limit = {"global_concurrency_limit": {"limit": 3}}
    assert state_of_server(on_server(**limit))["concurrency"] == {"limit": 3, "when_busy": "wait"}
    options = {"concurrency_options": {"collision_strategy": "CANCEL_NEW"}}
    assert state_of_server(on_server(**limit, **options))["concurrency"] == {"limit": 3, "when_busy": "skip"}
