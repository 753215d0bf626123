"""The old names of the client's methods: each does what the new one does, and names it in a warning."""

from typing import Any

import pytest

from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.deprecated_names import _NEW_NAMES
from tests.support.registries import REPOSITORY, push_image


@pytest.mark.parametrize(("old", "new"), _NEW_NAMES.items())
def test_an_old_name_is_the_new_method_and_warns_at_the_line_of_the_caller(
    client: RegistryClient, old: str, new: str
) -> None:
    part, name = new.split(".")
    with pytest.warns(DeprecationWarning, match=rf"{old} is deprecated: use RegistryClient\.{new}$") as caught:
        method = getattr(client, old)
    assert method == getattr(getattr(client, part), name)
    assert [warning.filename for warning in caught] == [__file__]


def test_an_old_name_still_reads_the_registry(client: RegistryClient) -> None:
    root = push_image(client)[0]
    anything: Any = client
    with pytest.warns(DeprecationWarning, match="head_manifest"):
        assert anything.head_manifest(REPOSITORY, root.digest) == root


def test_referrers_can_still_be_called_and_warns_at_the_line_of_the_caller(client: RegistryClient) -> None:
    subject = push_image(client)[0]
    anything: Any = client
    with pytest.warns(DeprecationWarning, match=r"use RegistryClient\.referrers\.list") as caught:
        assert anything.referrers(REPOSITORY, subject.digest) == ()
    assert [warning.filename for warning in caught] == [__file__]


def test_a_name_that_was_never_there_is_an_attribute_error(client: RegistryClient) -> None:
    anything: Any = client
    with pytest.raises(AttributeError, match="'RegistryClient' object has no attribute 'pull_manifest'"):
        anything.pull_manifest  # noqa: B018
