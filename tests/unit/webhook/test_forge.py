"""The token that writes commit statuses goes to the configured address alone."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl

from soci_pipeline.webhook.errors import ForgeRefused
from soci_pipeline.webhook.forge import Forge
from soci_pipeline.webhook.outbox import StatusTarget
from soci_pipeline.webhook.secret_values import SecretSource
from soci_pipeline.webhook.sources.github import GitHubSource
from soci_pipeline.webhook.sources.gitlab import GitLabSource
from soci_pipeline.webhook.sources.source import StatusSettings
from tests.support.webhook import COMMIT, Recorded, loopback

GITHUB = GitHubSource(kind="github", name="github", secrets=(SecretSource(env="WEBHOOK_SECRET"),))
GITLAB = GitLabSource(kind="gitlab", name="gitlab", tokens=(SecretSource(env="WEBHOOK_SECRET"),))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("source", [GITHUB, GITLAB], ids=lambda source: str(source.kind))
def test_a_redirect_to_another_port_does_not_receive_the_token(
    tmp_path: Path, source: GitHubSource | GitLabSource, status: int
) -> None:
    (tmp_path / "token").write_text("hush")
    asked: list[Recorded] = []
    elsewhere: list[Recorded] = []

    def other(request: Recorded) -> tuple[int, Any]:
        elsewhere.append(request)
        return 201, {}

    with loopback(other) as there:

        def forge(request: Recorded) -> tuple[int, Any, dict[str, str]]:
            asked.append(request)
            return status, {}, {"Location": f"{there}{request.path}"}

        with loopback(forge) as here:
            settings = StatusSettings(token=SecretSource(file=tmp_path / "token"), api_url=HttpUrl(here))
            with Forge(source, settings) as reporter, pytest.raises(ForgeRefused, match=str(status)):
                reporter.report(StatusTarget("team/shop", COMMIT), "COMPLETED", rule="shop", link=None)
    assert "hush" in str(asked[0].headers)
    assert elsewhere == []
