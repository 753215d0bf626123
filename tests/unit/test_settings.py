"""Settings: every section from the environment, and a wrong one named by its variable."""

import traceback
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.settings import Settings


def test_the_value_of_a_misspelt_name_is_in_no_traceback() -> None:
    value = "hunter2-secret"
    for name in ("SOCI_PIPELINE_REGISTRY_PASWORD", "SOCI_PIPELINE_WORK_JOBS", "SOCI_PIPELINE_REGISTY_PASSWORD"):
        with pytest.raises(InvalidInput, match=name) as caught:
            Settings.from_environment({name: value})
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_what_kubernetes_sets_for_a_service_is_no_setting() -> None:
    given = {
        "SOCI_PIPELINE_WEBHOOK_SERVICE_HOST": "10.0.0.7",
        "SOCI_PIPELINE_WEBHOOK_SERVICE_PORT": "4300",
        "SOCI_PIPELINE_WEBHOOK_SERVICE_PORT_HTTP": "4300",
        "SOCI_PIPELINE_REGISTRY_PORT": "tcp://10.0.0.8:5000",
        "SOCI_PIPELINE_REGISTRY_PORT_5000_TCP": "tcp://10.0.0.8:5000",
        "SOCI_PIPELINE_REGISTRY_PORT_5000_TCP_PROTO": "tcp",
        "SOCI_PIPELINE_REGISTRY_PORT_5000_TCP_ADDR": "10.0.0.8",
    }
    assert Settings.from_environment(given) == Settings.from_environment({})


def test_without_variables_the_defaults_hold() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.work.ztoc_cache == settings.work.folder / "ztocs"
    assert settings.publish.worker_wait == 0


def test_each_kind_of_field_is_read_from_its_variable() -> None:
    settings = Settings.from_environment(
        {
            "SOCI_PIPELINE_WORK_FOLDER": "/srv/work",
            "SOCI_PIPELINE_WORK_JOBS": "3",
            "SOCI_PIPELINE_REGISTRY_PLAIN_HTTP": "registry:5000, mirror:5000",
            "SOCI_PIPELINE_REGISTRY_CREATE_REPOSITORY": "true",
            "SOCI_PIPELINE_PUBLISH_DEADLINE": "90.5",
            "CONTAINERD_ADDRESS": "/run/containerd/containerd.sock",
        }
    )
    assert settings.work.folder == Path("/srv/work")
    assert settings.work.jobs == 3
    assert settings.registry.plain_http == ("registry:5000", "mirror:5000")
    assert settings.registry.create_repository
    assert settings.publish.deadline == 90.5
    assert settings.containerd.address == Path("/run/containerd/containerd.sock")


def test_our_own_variable_counts_for_more_than_containerds() -> None:
    given = {"CONTAINERD_ADDRESS": "/a", "SOCI_PIPELINE_CONTAINERD_ADDRESS": "/b"}
    assert Settings.from_environment(given).containerd.address == Path("/b")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SOCI_PIPELINE_WORK_JOBS", "many"),
        ("SOCI_PIPELINE_WORK_JOBS", "0"),
        ("SOCI_PIPELINE_PUBLISH_POLL", "-1"),
        ("SOCI_PIPELINE_REGISTRY_PART_SIZE", "4 cats"),
        ("SOCI_PIPELINE_REGISTRY_PART_SIZE", "1024"),
        ("SOCI_PIPELINE_REGISTRY_PART_SIZE", "0MiB"),
        ("SOCI_PIPELINE_REGISTRY_CAFILE", "/a"),
    ],
)
def test_a_wrong_or_unknown_setting_is_named_by_its_variable(variable: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=variable):
        Settings.from_environment({variable: value})


def test_a_wrong_value_is_said_in_plain_words_without_all_the_names_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.from_environment({"SOCI_PIPELINE_WORK_JOBS": "many"})
    assert caught.value.reason == "setting SOCI_PIPELINE_WORK_JOBS: must be an integer"
    assert caught.value.advice == "Correct it, or unset it: all settings have defaults."


def test_a_mistyped_setting_comes_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.from_environment({"SOCI_PIPELINE_REGISTRY_USERNAM": "bob"})
    assert caught.value.reason == "unknown setting SOCI_PIPELINE_REGISTRY_USERNAM"
    assert caught.value.advice == "Did you mean `SOCI_PIPELINE_REGISTRY_USERNAME`?"


def test_a_setting_of_a_mistyped_section_is_refused_and_no_variable_of_one_word_is() -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.from_environment({"SOCI_PIPELINE_REGISTY_PLAIN_HTTP": "registry.example.com"})
    assert caught.value.reason == "unknown setting SOCI_PIPELINE_REGISTY_PLAIN_HTTP"
    assert caught.value.advice == "Did you mean `SOCI_PIPELINE_REGISTRY_PLAIN_HTTP`?"
    assert Settings.from_environment({"SOCI_PIPELINE_HOME": "/srv/project"}) == Settings.from_environment({})


def test_a_setting_that_looks_like_none_comes_with_all_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.from_environment({"SOCI_PIPELINE_ECR_XYZZYXYZZYXYZZY": "1"})
    for name in ("WORK_JOBS", "REGISTRY_USERNAME", "REGISTRY_PASSWORD", "REGISTRY_TOKEN"):
        assert f"SOCI_PIPELINE_{name}" in str(caught.value.advice)


def test_credentials_and_other_programs_variables_are_no_settings() -> None:
    given = {
        "SOCI_PIPELINE_REGISTRY": "registry.example.com",
        "SOCI_PIPELINE_REGISTRY_USERNAME": "robot",
        "SOCI_PIPELINE_REGISTRY_PASSWORD": "hunter2",
        "SOCI_PIPELINE_REGISTRY_TOKEN": "hunter2",
        "SOCI_PIPELINE_HOME": "/srv/pipeline",
        "SOCI_PIPELINE_RUN": "/srv/run",
        "PATH": "/bin",
    }
    assert Settings.from_environment(given) == Settings()


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert Settings.from_environment({"SOCI_PIPELINE_BUILD_NETWORK": ""}).build.network is None


@pytest.mark.parametrize("name", ["SOCI_PIPELINE_BUILD_CACHE_FROM", "SOCI_PIPELINE_BUILD_CACHE_TO"])
def test_the_machine_wide_cache_of_earlier_releases_is_an_error_that_names_the_parameter(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"the setting {name} was removed") as caught:
        Settings.from_environment({name: "type=registry,ref=a"})
    assert "cache: registry" in str(caught.value.advice)
