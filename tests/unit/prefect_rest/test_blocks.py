"""Blocks, their types and schemas."""

from typing import Any

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from tests.support.prefect_answers import answering
from tests.support.webhook import Recorded, loopback

WITHOUT_SECRETS = "/block_types/slug/secret/block_documents/name/forge-token?include_secrets=false"


def test_a_block_is_found_by_its_type_and_name_and_its_secret_not_asked_for() -> None:
    with answering({WITHOUT_SECRETS: {"id": "b1"}}) as (url, _), PrefectApi(url) as api:
        assert api.block_id("secret", "forge-token") == "b1"


def test_a_block_a_type_and_a_schema_that_are_not_there_are_no_errors() -> None:
    with answering({}) as (url, _), PrefectApi(url) as api:
        assert api.block_id("secret", "forge-token") is None
        assert api.block_type("secret") is None
        assert not api.has_block_schema("sha256:0", "1.0")


def test_a_schema_is_known_by_its_checksum_and_version() -> None:
    with (
        answering({"/block_schemas/checksum/sha256%3A0?version=1.0": {"id": "s1"}}) as (url, _),
        PrefectApi(url) as api,
    ):
        assert api.has_block_schema("sha256:0", "1.0")
        assert not api.has_block_schema("sha256:0", "1.1")


def test_a_name_cannot_lead_to_another_path() -> None:
    with answering({}) as (url, requests), PrefectApi(url) as api:
        api.block_type("../../admin")
        api.block_id("a/b", "c?d=e")
    assert [path for path, _ in requests] == [
        "/block_types/slug/..%2F..%2Fadmin",
        "/block_types/slug/a%2Fb/block_documents/name/c%3Fd%3De?include_secrets=false",
    ]


def test_a_type_and_its_schema_are_made_and_changed() -> None:
    requests: list[tuple[str, str, Any]] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        requests.append((request.method, request.path, request.body))
        return 201, {"id": "t1"}

    with loopback(answer) as url, PrefectApi(f"{url}/api") as api:
        made = api.create_block_type({"slug": "secret"})
        api.update_block_type(made, {"name": "Secret"})
        api.create_block_schema({"block_type_id": made})
    assert requests == [
        ("POST", "/api/block_types/", {"slug": "secret"}),
        ("PATCH", "/api/block_types/t1", {"name": "Secret"}),
        ("POST", "/api/block_schemas/", {"block_type_id": "t1"}),
    ]


@pytest.mark.parametrize("answer", [[1], "text", {"name": "no id"}])
def test_an_answer_that_is_no_block_is_an_error_of_the_library(answer: Any) -> None:
    with loopback(lambda _: (200, answer)) as url, PrefectApi(url, deadline_s=0) as api:
        with pytest.raises((PrefectRefused, PrefectUnavailable)):
            api.block_id("secret", "forge-token")
        with pytest.raises((PrefectRefused, PrefectUnavailable)):
            api.create_block_type({"slug": "secret"})
