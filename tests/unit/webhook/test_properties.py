"""Whatever a sender signs: what is stored is what the flow takes, and its names are ones that git itself accepts."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import Ignored, PushEvent
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.receiver import Receiver
from soci_pipeline.webhook.sources import generic
from tests.support import webhook as support
from tests.support.examples import examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NASTY = st.sampled_from(
    ["--upload-pack=x", "$(id)", "`id`", "a\nb", "../x", "a..b", "\x00", "${commit}", "{{x}}", "-", ""]
)
REF = st.builds(
    lambda kind, parts: f"refs/{kind}/" + "".join(parts),
    st.sampled_from(["heads", "tags"]),
    st.lists(st.characters(codec="ascii") | st.sampled_from(["..", "@{", ".lock", "//", "/."]), max_size=12),
)


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[Receiver, Outbox]]:
    with tempfile.TemporaryDirectory() as folder:
        rule = support.rule(repositories=["**"], branches=["**"], tags=["**"])
        limits = {"events_per_minute": 1_000_000}
        configuration = support.configuration(Path(folder), rules=[rule], limits=limits)
        with Outbox(configuration.outbox) as outbox:
            yield Receiver(configuration, outbox, Metrics()), outbox


@st.composite
def _changed_pushes(draw: st.DrawFn) -> dict[str, Any]:
    """A sound push in which one value, at any depth, is something else or gone."""
    push = json.loads(json.dumps(support.github_push()))
    place: Any = push
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    if draw(st.booleans()) or not isinstance(place, dict):
        place[key] = draw(JSON | NASTY)
    else:
        del place[key]
    return dict(push)


@settings(max_examples=examples(300))
@given(push=_changed_pushes())
def test_a_push_with_one_value_changed_is_refused_or_stored_with_valid_parameters(
    receiver: tuple[Receiver, Outbox], push: dict[str, Any]
) -> None:
    body = json.dumps(push).encode()
    answer = receiver[0].receive("github", support.github_headers(body), body)
    assert answer.status in {202, 422}
    for each in answer.body.get("runs", ()):
        stored = receiver[1].run(each["key"])
        if stored is not None:
            PublishRequest.check(stored.parameters)


@settings(max_examples=examples(200))
@given(ref=REF)
def test_a_ref_that_is_taken_is_one_that_git_takes(ref: str) -> None:
    body = json.dumps(support.generic_push(ref=ref)).encode()
    try:
        event = generic.parse(body)
    except EventRefused:
        return
    assert isinstance(event, PushEvent)
    assert subprocess.run(["git", "check-ref-format", event.ref], check=False).returncode == 0
    assert not set(event.ref) & set("$`\"'\\;|&<>(){}*?[]!~^: \t\r\n")


@settings(max_examples=examples(200))
@given(headers=st.dictionaries(st.sampled_from(["x-github-event", "x-gitlab-event"]), st.text(max_size=30)), body=JSON)
def test_no_signed_document_raises_anything_but_a_refusal(headers: dict[str, str], body: Any) -> None:
    from soci_pipeline.webhook.sources import github, gitlab

    data = json.dumps(body).encode()
    for parse in (github.parse, gitlab.parse, lambda _, body: generic.parse(body)):
        with contextlib.suppress(EventRefused):
            event = parse(headers | {"x-github-event": "push", "x-gitlab-event": "Push Hook"}, data)
            assert isinstance(event, Ignored | PushEvent)
