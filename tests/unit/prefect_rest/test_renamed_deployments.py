"""A caller that still uses a deployment's old name learns the new one."""

from typing import Any

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused
from tests.support.webhook import Recorded, loopback


def not_found(request: Recorded) -> tuple[int, Any]:
    return 404, {"detail": "Deployment not found"}


def test_an_old_name_that_is_gone_is_answered_with_the_new_one() -> None:
    with loopback(not_found) as url, PrefectApi(f"{url}/api", deadline_s=0) as api:
        with pytest.raises(PrefectRefused) as caught:
            api.create_run("publish-image/default", {})
        assert caught.value.reason == (
            "the deployment publish-image/default does not exist; it is now named publish-image/publish"
        )
        assert caught.value.temporary
        assert not api.has_deployment("publish-image/default")
        with pytest.raises(PrefectRefused, match="Prefect answered 404"):
            api.create_run("publish-image/another", {})
