"""A publications file applied to a real Prefect server, before and after changes that a person makes in its UI."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from local_stack.prefect_server import PrefectServer
from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.publish.request import PublishRequest

ENTRYPOINT = "flows/publish_image.py:publish_image"
PULL_STEPS = [{"soci_pipeline.publish.release.enter": {"repository": "", "commit": "1" * 40}}]


@dataclass
class Server:
    """The shared server with a deployment of the project's release, a file of publications, and both's names."""

    api: PrefectApi
    mark: str
    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def file(self) -> Path:
        return self.folder / "publications.yaml"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        # A busy SQLite answers 503, which the client repeats.
        return self.api.ask(method, path, body)

    def name(self, publication: str) -> str:
        return f"{publication}-{self.mark}"

    def write(self, *publications: dict[str, Any], **top: Any) -> None:
        entries = [each | {"name": self.name(each["name"])} for each in publications]
        self.file.write_text(yaml.safe_dump({"version": 1, "owner": self.mark, "publications": entries} | top))

    def setup(self, *options: str, status: ExitCode = ExitCode.OK) -> dict[str, Any]:
        """Apply the file; returns the report for each publication by its name without the mark."""
        self.capsys.readouterr()
        found = main(["setup", "--publications", str(self.file), "--json", *options])
        printed = self.capsys.readouterr()
        assert found == status, printed
        report = json.loads(printed.out)["publications"]
        return {name.partition("/")[2].removesuffix(f"-{self.mark}"): each for name, each in report.items()}

    def refused(self, *options: str) -> str:
        assert main(["setup", "--publications", str(self.file), *options]) == ExitCode.INVALID_INPUT
        return self.capsys.readouterr().err

    def deployment(self, publication: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/deployments/name/publish-image/{self.name(publication)}")
        return found

    def change(self, publication: str, **fields: Any) -> None:
        """As the UI does."""
        self.ask("PATCH", f"/deployments/{self.deployment(publication)['id']}", fields)

    def change_schedule(self, publication: str, **fields: Any) -> None:
        found = self.deployment(publication)
        (schedule,) = found["schedules"]
        self.ask("PATCH", f"/deployments/{found['id']}/schedules/{schedule['id']}", fields)

    def all(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("POST", "/deployments/filter", {"sort": "NAME_ASC"})
        return [each for each in found if self.mark in each["name"]]


def web(**fields: Any) -> dict[str, Any]:
    source = "https://git.example.com/acme/web.git"
    return {"name": "web", "image": "registry.example.com/acme/web", "source": source} | fields


@pytest.fixture
def server(
    prefect: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Server]:
    mark = uuid4().hex[:8]
    (tmp_path / "flows").mkdir()
    declared = {"name": f"release-{mark}", "entrypoint": ENTRYPOINT}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [declared]}))
    monkeypatch.setenv("SOCI_PIPELINE_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", prefect.api_url)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-home"))
    api = PrefectApi(prefect.api_url)
    server = Server(api, mark, tmp_path, capsys)
    pool = f"pool-{mark}"
    server.ask("POST", "/work_pools/", {"name": pool, "type": "process"})
    flow = server.ask("POST", "/flows/", {"name": "publish-image"})
    schema = {"type": "object", "properties": {name: {} for name in PublishRequest.model_fields}}
    fields = {
        "name": declared["name"],
        "flow_id": flow["id"],
        "entrypoint": ENTRYPOINT,
        "path": ".",
        "pull_steps": PULL_STEPS,
        "version": "1",
        "work_pool_name": pool,
        "work_queue_name": "default",
        "job_variables": {"env": {"A": "b"}},
        "enforce_parameter_schema": False,
        "parameter_openapi_schema": schema,
        "tags": ["soci-pipeline"],
    }
    server.ask("POST", "/deployments/", fields)
    yield server
    for each in server.all():
        server.ask("DELETE", f"/deployments/{each['id']}")
    server.ask("DELETE", f"/work_pools/{pool}")
    api.close()


def schedules(deployment: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (each["schedule"]["cron"], each["schedule"]["timezone"], each["active"]) for each in deployment["schedules"]
    ]


def test_each_publication_becomes_a_deployment_that_runs_what_the_projects_own_runs(server: Server) -> None:
    nightly = {"schedule": {"cron": "17 3 * * *", "timezone": "Europe/Berlin"}, "unless_same_as": "nightly"}
    limit = {"limit": 1, "when_busy": "skip"}
    server.write(
        web(tags=["{short_sha}", "latest"], **nightly, concurrency=limit),
        web(name="docs", image="registry.example.com/acme/docs", description="The manual."),
        defaults={"platforms": ["linux/arm64"]},
    )
    assert {name: each["action"] for name, each in server.setup().items()} == {"web": "make", "docs": "make"}

    found, release = server.deployment("web"), server.deployment("release")
    assert found["parameters"] == {
        "image": "registry.example.com/acme/web",
        "source": "https://git.example.com/acme/web.git",
        "platforms": ["linux/arm64"],
        "tags": ["{short_sha}", "latest"],
        "unless_same_as": "nightly",
    }
    assert schedules(found) == [("17 3 * * *", "Europe/Berlin", True)]
    assert found["tags"] == ["soci-pipeline", f"publications:{server.mark}"]
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    copied = ("flow_id", "entrypoint", "path", "pull_steps", "work_pool_name", "work_queue_name", "job_variables")
    assert {name: found[name] for name in copied} == {name: release[name] for name in copied}
    assert found["parameter_openapi_schema"]["properties"] == release["parameter_openapi_schema"]["properties"]
    docs = server.deployment("docs")
    assert (docs["description"], docs["schedules"]) == ("The manual.", [])

    assert {name: each["action"] for name, each in server.setup().items()} == {"web": "unchanged", "docs": "unchanged"}
    assert server.deployment("web") == found


def test_a_change_in_the_ui_is_kept_and_a_change_of_the_file_is_applied(server: Server) -> None:
    server.write(web(tags=["latest"], platforms=["linux/amd64"], schedule="17 3 * * *"))
    server.setup()
    before = server.deployment("web")
    # The form of the UI sends the defaults and the empty fields too.
    form: dict[str, Any] = {
        "verify": "all",
        "target": None,
        "pull": False,
        "build_args": {},
        "builder": "auto",
        "context": ".",
    }
    server.change("web", parameters=before["parameters"] | form, tags=[*before["tags"], "mine"])
    server.change("web", paused=True, job_variables={"env": {"C": "d"}}, description="Ask the web team.")
    server.change_schedule("web", active=False, parameters={"pull": True})

    server.write(web(tags=["latest", "stable"], platforms=["linux/amd64"], schedule="30 4 * * *"))
    report = server.setup()["web"]

    found = server.deployment("web")
    assert found["parameters"]["tags"] == ["latest", "stable"]
    assert found["parameters"]["verify"] == "all"
    assert schedules(found) == [("30 4 * * *", "UTC", False)]
    assert found["schedules"][0]["parameters"] == {"pull": True}
    assert "mine" in found["tags"]
    assert (found["paused"], found["job_variables"]) == (True, {"env": {"C": "d"}})
    assert found["description"] == "Ask the web team."
    assert [each["path"] for each in report["changes"]] == ["parameters.tags", "schedule.cron"]
    assert sorted(each["path"] for each in report["kept"]) == ["description", "parameters.verify", "schedule.active"]
    assert server.setup()["web"]["action"] == "unchanged"


def test_a_value_that_both_sides_changed_leaves_its_deployment_as_it_is(server: Server) -> None:
    server.write(web(ref="main"), web(name="docs", ref="main"))
    server.setup()
    server.change("web", parameters=server.deployment("web")["parameters"] | {"ref": "hotfix"})
    before = server.deployment("web")
    server.write(web(ref="release", verify="all"), web(name="docs", ref="release"))

    report = server.setup(status=ExitCode.CONFLICT)

    assert report["web"]["action"] == "conflict"
    assert report["web"]["conflicts"] == [
        {"path": "parameters.ref", "applied": "main", "file": "release", "server": "hotfix"}
    ]
    assert server.deployment("web") == before
    assert server.deployment("docs")["parameters"]["ref"] == "release"


@pytest.mark.parametrize(("side", "ref"), [("file", "release"), ("server", "hotfix")])
def test_a_side_that_was_chosen_settles_a_conflict_for_good(server: Server, side: str, ref: str) -> None:
    server.write(web(ref="main"))
    server.setup()
    server.change("web", parameters=server.deployment("web")["parameters"] | {"ref": "hotfix"})
    server.write(web(ref="release", verify="all"))
    server.setup("--on-conflict", side)
    parameters = server.deployment("web")["parameters"]
    assert (parameters["ref"], parameters["verify"]) == (ref, "all")
    assert server.setup()["web"]["action"] == "unchanged"


def test_the_file_and_the_server_together_have_to_be_valid(server: Server) -> None:
    server.write(web())
    server.setup()
    image = "https://builds.example.com/{platform}.tar"
    server.write(web(builder="prebuilt", prebuilt=image))
    server.setup()
    parameters = server.deployment("web")["parameters"]
    server.change("web", parameters={name: value for name, value in parameters.items() if name != "prebuilt"})
    server.write(web(builder="prebuilt", prebuilt=image, verify="all"))
    report = server.setup(status=ExitCode.CONFLICT)["web"]
    assert "requires the parameter prebuilt" in report["invalid"]
    assert "verify" not in server.deployment("web")["parameters"]


def test_a_schedule_that_was_replaced_as_a_whole_is_still_the_files(server: Server) -> None:
    server.write(web(schedule="17 3 * * *"))
    server.setup()
    # Through the list of schedules, as other clients do it.
    found = server.deployment("web")
    replaced = {"schedule": {"cron": "17 3 * * *", "timezone": "UTC"}, "active": False, "slug": "mine"}
    server.ask("DELETE", f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}")
    server.ask("POST", f"/deployments/{found['id']}/schedules", [{**replaced, "slug": None}])
    server.write(web(schedule="30 4 * * *"))
    server.setup()
    assert schedules(server.deployment("web")) == [("30 4 * * *", "UTC", False)]


def test_a_schedule_can_be_added_and_taken_away_by_either_side(server: Server) -> None:
    server.write(web())
    server.setup()
    server.write(web(schedule="17 3 * * *"))
    server.setup()
    found = server.deployment("web")
    extra = {"schedule": {"interval": 3600, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}, "slug": "hourly"}
    server.ask("POST", f"/deployments/{found['id']}/schedules", [extra])
    assert server.setup()["web"]["action"] == "unchanged"
    server.write(web())
    server.setup()
    assert [each["slug"] for each in server.deployment("web")["schedules"]] == ["hourly"]


def test_a_dry_run_shows_the_same_plan_and_changes_nothing(server: Server) -> None:
    server.write(web(), web(name="old"))
    assert server.setup("--dry-run")["web"]["action"] == "make"
    assert [each["name"] for each in server.all()] == [server.name("release")]
    server.setup()
    before = server.all()
    server.write(web(verify="all", schedule="17 3 * * *"), web(name="new"))
    planned = server.setup("--dry-run", "--remove")
    assert {name: each["action"] for name, each in planned.items()} == {"web": "change", "new": "make", "old": "remove"}
    assert server.all() == before
    assert server.setup("--remove") == planned


def test_a_deployment_that_left_the_file_is_deleted_only_on_demand(server: Server) -> None:
    server.write(web(), web(name="old"))
    server.setup()
    # A copy that somebody made in the UI has the tag and the schema too.
    copy = server.deployment("old")
    kept = ("flow_id", "parameters", "tags", "parameter_openapi_schema", "enforce_parameter_schema")
    server.ask("POST", "/deployments/", {name: copy[name] for name in kept} | {"name": server.name("copy")})
    server.write(web())
    assert server.setup()["old"]["action"] == "no longer in the file"
    assert server.deployment("old")
    assert set(server.setup("--remove")) == {"web", "old"}
    assert [each["name"] for each in server.all()] == [server.name(name) for name in ("copy", "release", "web")]


def test_a_deployment_of_somebody_else_is_not_taken_over(server: Server) -> None:
    release = server.deployment("release")
    mine = {"flow_id": release["flow_id"], "name": server.name("web"), "parameters": {"verify": "all"}}
    server.ask("POST", "/deployments/", mine)
    before = server.all()
    server.write(web(name="first"), web())
    said = server.refused()
    assert "was not made from a publications file" in said
    assert f"{server.file}:" in said
    assert server.all() == before

    server.change("web", tags=[f"publications:{server.mark}"])
    server.setup()
    assert server.deployment("web")["parameters"]["verify"] == "all"
    assert server.deployment("web")["entrypoint"] == ENTRYPOINT


def test_another_files_publication_keeps_its_name(server: Server) -> None:
    server.write(web())
    server.setup()
    server.write(web(), owner=f"other-{server.mark}")
    assert f"belongs to another file (publications:{server.mark})" in server.refused()


def test_a_run_that_ended_half_way_is_finished_by_the_next(server: Server) -> None:
    server.write(web(ref="main", schedule="17 3 * * *"))
    server.setup()
    before = server.deployment("web")
    server.write(web(ref="release", schedule="30 4 * * *"))
    server.setup()
    # As if it had been killed after the schedule, and before the rest with the record.
    fields = ("parameters", "parameter_openapi_schema")
    server.change("web", **{name: before[name] for name in fields})
    assert "conflicts" not in server.setup()["web"]
    found = server.deployment("web")
    assert (found["parameters"]["ref"], schedules(found)) == ("release", [("30 4 * * *", "UTC", True)])
    assert server.setup()["web"]["action"] == "unchanged"


def test_a_new_release_of_the_project_reaches_its_publications(server: Server) -> None:
    server.write(web())
    server.setup()
    server.change("release", version="2", pull_steps=[{"soci_pipeline.publish.release.enter": {"commit": "2" * 40}}])
    assert server.setup()["web"]["new_release"]
    assert server.deployment("web")["pull_steps"] == server.deployment("release")["pull_steps"]
    assert server.setup()["web"]["action"] == "unchanged"


def test_without_the_projects_own_deployment_nothing_is_made(server: Server) -> None:
    server.ask("DELETE", f"/deployments/{server.deployment('release')['id']}")
    server.write(web())
    assert "prefect --no-prompt deploy --all" in server.refused()
    assert server.all() == []


def test_a_deployment_that_was_deleted_in_the_ui_is_made_again(server: Server) -> None:
    server.write(web())
    server.setup()
    server.ask("DELETE", f"/deployments/{server.deployment('web')['id']}")
    assert server.setup()["web"]["action"] == "make"


def test_a_run_that_an_event_starts_has_the_parameters_of_the_publication(server: Server) -> None:
    server.write(web(tags=["latest"]))
    server.setup()
    run = server.ask(
        "POST", f"/deployments/{server.deployment('web')['id']}/create_flow_run", {"parameters": {"ref": "x"}}
    )
    assert run["parameters"]["tags"] == ["latest"]
    assert run["parameters"]["ref"] == "x"
    assert not [name for name in run["labels"] if "publication" in name]
