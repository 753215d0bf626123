"""The Standard Webhooks scheme, GitLab in both of its schemes, and the generic source."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.errors import SignatureRefused
from soci_pipeline.webhook.events import Ignored, PushEvent
from soci_pipeline.webhook.sources import generic, gitlab, standard
from tests.support import webhook as support

NOW = 1_795_500_000.0
KEYS = (support.SECRET, support.NEW_SECRET)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks specification, "Signature scheme"."""
    secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert standard.sign(secret, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=body) == expected


def test_a_key_with_the_prefix_is_base64_and_another_is_taken_as_it_is() -> None:
    assert standard.key_bytes(b"whsec_" + base64.b64encode(b"key")) == b"key"
    assert standard.key_bytes(b"key") == b"key"
    with pytest.raises(ValueError, match="base64"):
        standard.key_bytes(b"whsec_!")


def test_several_signatures_may_be_given_and_one_has_to_hold() -> None:
    headers = support.standard_headers(b"{}", NOW)
    headers["webhook-signature"] = "v1,AAAA v2,x " + headers["webhook-signature"]
    assert standard.verify(headers, b"{}", KEYS, NOW) == b"msg_1.{}"


def test_the_same_message_delivered_again_later_is_the_same_event() -> None:
    first = standard.verify(support.standard_headers(b"{}", NOW), b"{}", KEYS, NOW)
    later = standard.verify(support.standard_headers(b"{}", NOW + 60), b"{}", KEYS, NOW + 60)
    other = standard.verify(support.standard_headers(b"{}", NOW, message_id="msg_2"), b"{}", KEYS, NOW)
    assert first == later != other


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(int(NOW) + 1)},
        {"webhook-timestamp": "now"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": "²"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "é"},
        {"webhook-signature": " ".join(["v1,AAAA"] * 400)},
    ],
)
def test_a_changed_id_timestamp_or_signature_is_refused(changes: dict[str, str]) -> None:
    headers = support.standard_headers(b"{}", NOW) | changes
    with pytest.raises(SignatureRefused):
        standard.verify(headers, b"{}", KEYS, NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(name: str) -> None:
    headers = support.standard_headers(b"{}", NOW)
    del headers[name]
    with pytest.raises(SignatureRefused, match=name):
        standard.verify(headers, b"{}", KEYS, NOW)


@pytest.mark.parametrize("age", [301, -301])
def test_a_message_that_is_too_old_or_from_the_future_is_refused(age: int) -> None:
    with pytest.raises(SignatureRefused, match="timestamp"):
        standard.verify(support.standard_headers(b"{}", NOW), b"{}", KEYS, NOW + age)


def test_gitlabs_classic_token_is_compared_with_both() -> None:
    for key in KEYS:
        assert gitlab.verify_token({"x-gitlab-token": key.decode()}, b"{}", KEYS) == b"{}"
    for wrong in (
        {},
        {"x-gitlab-token": ""},
        {"x-gitlab-token": "x"},
        {"x-gitlab-token": support.SECRET.decode()[:-1]},
    ):
        with pytest.raises(SignatureRefused):
            gitlab.verify_token(wrong, b"{}", KEYS)


def _gitlab(event: str = "Push Hook", **changes: Any) -> Any:
    return gitlab.parse({"x-gitlab-event": event}, json.dumps(support.gitlab_push(**changes)).encode())


def test_a_push_of_gitlab_has_its_project_commit_and_paths() -> None:
    event = _gitlab()
    assert isinstance(event, PushEvent)
    assert (event.repository, event.project, event.branch) == ("group/sub/shop", "15", "main")
    assert event.paths == frozenset({"app/x.py"})


def test_an_annotated_tag_of_gitlab_is_the_commit_and_not_the_tag_object() -> None:
    event = _gitlab("Tag Push Hook", object_kind="tag_push", ref="refs/tags/v1", after="a" * 40, before=support.ZERO)
    assert (event.commit, event.tag, event.paths) == (support.COMMIT, "v1", None)


@pytest.mark.parametrize("changes", [{"total_commits_count": 21}, {"before": support.ZERO}, {"commits": []}])
def test_paths_are_unknown_where_gitlab_does_not_list_all_commits(changes: dict[str, Any]) -> None:
    assert _gitlab(**changes).paths is None


def test_deletions_and_other_events_of_gitlab_are_ignored() -> None:
    assert isinstance(_gitlab(after=support.ZERO, checkout_sha=None), Ignored)
    assert isinstance(_gitlab("Issue Hook"), Ignored)
    assert isinstance(_gitlab("Tag Push Hook"), Ignored)


def test_the_generic_source_takes_pushes_and_images_and_no_other_key() -> None:
    assert isinstance(generic.parse(json.dumps(support.generic_push()).encode()), PushEvent)
    for wrong in (support.generic_push(extra=1), support.generic_push(kind="ignored"), {"kind": "push"}):
        with pytest.raises(InvalidInput):
            generic.parse(json.dumps(wrong).encode())


def test_signing_tokens_and_the_classic_token_cannot_be_mixed(tmp_path: Path) -> None:
    key = [{"env": "KEY"}]
    for schemes in ({}, {"tokens": key, "signing_tokens": key}):
        with pytest.raises(InvalidInput, match=r"signing_tokens or tokens"):
            support.configuration(tmp_path, sources=[{"kind": "gitlab", "name": "github"} | schemes])
