"""Schemathesis against the running service, by its own description: forged requests, and rightly signed ones.

Bounded, so that the unit tier stays quick; what it looks for is an answer that is not described, and above all a 5xx.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from soci_pipeline.webhook.service import serving
from tests.support import webhook as support
from tests.support.webhook import fake_prefect

pytestmark = pytest.mark.first
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def _service(folder: Path) -> Iterator[str]:
    document = support.document(folder)
    secrets = document["sources"][0]["secrets"]
    sources = [
        {"kind": "github", "name": "github", "secrets": secrets},
        {"kind": "gitlab", "name": "gitlab", "signing_tokens": secrets},
        {"kind": "gitlab", "name": "classic", "tokens": secrets},
        {"kind": "generic", "name": "generic", "secrets": secrets},
    ]
    limits = {"requests_per_minute": 100_000, "events_per_minute": 100_000}
    rules = [support.rule(sources=["github", "gitlab", "classic", "generic"], repositories=["**"], branches=["**"])]
    with fake_prefect() as prefect:
        changes = {"sources": sources, "limits": limits, "rules": rules}
        prefect_settings = {"prefect": {"api_url": prefect.url}}
        with serving(support.configuration(folder, **changes, **prefect_settings)) as (address, _):
            yield address


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _service(tmp_path_factory.mktemp("fuzz")) as url:
        yield url


def _schema(address: str) -> Any:
    return schemathesis.openapi.from_dict(httpx.get(f"{address}/openapi.json").json())


SOURCES = ("github", "gitlab", "classic", "generic")
FORGED = [
    *((f"/webhooks/{each}", "POST", mode) for each in SOURCES for mode in GenerationMode),
    # Nothing in these can be wrong.
    ("/healthz", "GET", GenerationMode.POSITIVE),
    ("/metrics", "GET", GenerationMode.POSITIVE),
]


@pytest.mark.parametrize(("path", "method", "mode"), FORGED)
def test_forged_requests_get_described_answers_only(address: str, path: str, method: str, mode: GenerationMode) -> None:
    operation = _schema(address)[path][method]
    strategy = operation.as_strategy(generation_mode=mode)

    @EXAMPLES
    @given(case=strategy)
    def check(case: Any) -> None:
        case.call_and_validate(base_url=address, checks=CHECKS)

    check()


@pytest.mark.parametrize("kind", SOURCES)
def test_signed_bodies_of_any_content_get_described_answers_only(address: str, kind: str) -> None:
    operation = _schema(address)[f"/webhooks/{kind}"]["POST"]
    seen: set[int] = set()

    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: Any) -> None:
        body = json.dumps(case.body).encode()
        response = httpx.post(f"{address}/webhooks/{kind}", content=body, headers=_signed(kind, body))
        seen.add(response.status_code)
        assert response.status_code in {202, 422}
        assert response.json()

    check()
    assert seen <= {202, 422}
    assert seen


def _signed(kind: str, body: bytes) -> dict[str, str]:
    event = {"x-gitlab-event": "Push Hook"}
    if kind == "github":
        return support.github_headers(body)
    if kind == "classic":
        return event | {"content-type": "application/json", "x-gitlab-token": support.SECRET.decode()}
    return event | support.standard_headers(body, time.time())
