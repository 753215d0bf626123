"""The forms of the flows, as `prefect deploy` stores them and the UI draws them."""

from typing import Any

import pytest
import yaml
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema

from flows.index_image import index_image
from flows.prune_repository import prune_repository
from flows.publish_image import publish_image
from flows.verify_image import verify_image
from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.errors import InvalidInput
from soci_pipeline.project import project_folder
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.run_names import publication_name as name_of
from soci_pipeline.reindex.parameters import IndexParameters
from soci_pipeline.retention.parameters import PruneParameters
from soci_pipeline.validation import Parameters
from soci_pipeline.verification.parameters import VerifyParameters
from soci_pipeline.webhook.flow_parameters import FLOWS
from tasks.form import LEFT_OUT

MODELS: dict[Flow[..., Any], type[Parameters]] = {
    publish_image: PublishRequest,
    index_image: IndexParameters,
    verify_image: VerifyParameters,
    prune_repository: PruneParameters,
}
IMAGE = "registry.example.com/shop/web"


def form_of(flow: Flow[..., Any]) -> dict[str, dict[str, Any]]:
    return dict(parameter_schema(flow).properties)


@pytest.fixture(params=MODELS, ids=lambda flow: flow.name)
def flow(request: pytest.FixtureRequest) -> Flow[..., Any]:
    found: Flow[..., Any] = request.param
    return found


def test_a_form_has_the_fields_of_its_model(flow: Flow[..., Any]) -> None:
    assert set(form_of(flow)) == set(MODELS[flow].model_fields)
    required = [name for name, field in MODELS[flow].model_fields.items() if field.is_required()]
    assert set(flow.parameters.required) == set(required)


def test_every_field_has_a_title_and_says_what_it_means(flow: Flow[..., Any]) -> None:
    shown = form_of(flow)
    assert not [name for name, field in shown.items() if not field.get("description") or field["title"] == name]
    inner = shown.get("soci", {"properties": {}})["properties"]
    assert not [name for name, field in inner.items() if not field.get("description")]


def test_no_field_asks_whether_it_is_a_text_or_none(flow: Flow[..., Any]) -> None:
    assert "anyOf" not in str(form_of(flow))
    assert "$ref" not in str(form_of(flow))


def test_the_defaults_of_a_form_mean_what_the_model_means_without_them(flow: Flow[..., Any]) -> None:
    given = {"image": IMAGE, "source": "https://git.example.com/web.git"}
    if flow is not publish_image:
        given = {flow.parameters.required[0]: IMAGE + ("" if flow is prune_repository else ":1.4")}
    defaults = {name: field["default"] for name, field in form_of(flow).items() if "default" in field}
    model = MODELS[flow]
    assert model.check(defaults | given) == model.check(given)
    assert set(defaults) | set(given) == set(model.model_fields)


def test_what_decides_most_comes_first() -> None:
    shown = sorted(form_of(publish_image), key=lambda name: form_of(publish_image)[name]["position"])
    assert shown[:5] == ["image", "source", "ref", "tags", "platforms"]


def test_choices_are_choices_in_the_form() -> None:
    shown = form_of(publish_image)
    assert shown["builder"]["enum"] == list(BuilderName)
    assert shown["verify"]["enum"] == ["sample", "all", "off"]
    assert shown["soci"]["properties"]["version"]["enum"] == ["v1", "v2"]
    assert form_of(verify_image)["mode"]["enum"] == ["sample", "all"]


@pytest.mark.parametrize("absent", [None, "", "  "], ids=["null", "empty", "blank"])
def test_a_text_that_was_left_empty_counts_as_left_out(absent: str | None) -> None:
    request = PublishRequest.check(
        {"image": IMAGE, "source": "https://git.example.com/web.git", "ref": absent, "soci": {"reuse_from": absent}}
    )
    assert request.ref is None
    assert request.soci.reuse_from is None


def test_the_server_leaves_the_check_of_a_form_to_the_flow() -> None:
    """It would refuse the null that its UI sends for a field that is left empty."""
    deployments = yaml.safe_load((project_folder() / "prefect.yaml").read_text())["deployments"]
    forms = [each for each in deployments if "branch" not in each["tags"]]
    assert {each["entrypoint"].rpartition(":")[2].replace("_", "-") for each in forms} == {flow.name for flow in MODELS}
    assert not [each["entrypoint"] for each in forms if each.get("enforce_parameter_schema", True)]


def test_a_flow_is_called_with_parameters_and_refuses_those_that_are_wrong() -> None:
    with pytest.raises(InvalidInput, match=r"reference: .*neither a tag nor a digest"):
        verify_image.fn(IMAGE)
    with pytest.raises(InvalidInput, match="keep_latest: "):
        prune_repository.fn(IMAGE, keep_latest=-1)


@pytest.mark.parametrize("given", [{}, {"image": IMAGE}], ids=["nothing", "no source"])
def test_a_run_without_what_is_required_fails_and_says_so(given: dict[str, str]) -> None:
    state: Any = publish_image(**given, return_state=True)
    assert state.is_failed()
    with pytest.raises(InvalidInput, match="source: is required\n  next: Correct the parameters"):
        state.result()


def test_a_wrong_platform_is_named_in_words_of_its_own() -> None:
    with pytest.raises(InvalidInput) as refused:
        publish_image.fn(IMAGE, "https://git.example.com/web.git", platforms=["amd64"])
    assert refused.value.reason.startswith("platforms.0: not a valid platform: 'amd64'")


def test_events_are_checked_with_the_models_of_the_forms() -> None:
    assert {flow.name: MODELS[flow] for flow in (publish_image, index_image)} == FLOWS


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://git.example.com/shop/web.git", "git.example.com/shop/web.git"),
        ("git@git.example.com:shop/web.git", "git@git.example.com:shop/web.git"),
        ("codecommit::eu-west-1://web", "web"),
    ],
)
def test_a_publication_is_called_after_its_image_source_and_ref(source: str, shown: str) -> None:
    assert name_of({"image": IMAGE, "source": source, "ref": "main"}) == f"shop/web from {shown} main"


@pytest.mark.parametrize("given", [{}, {"image": LEFT_OUT, "source": None, "ref": None}])
def test_a_publication_without_image_and_source_has_a_name_all_the_same(given: dict[str, Any]) -> None:
    assert name_of(given) == "no image from no source"
