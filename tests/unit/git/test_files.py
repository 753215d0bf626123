"""A build context or a Dockerfile that is reached through symbolic links: inside of the repository it works."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.builders.errors import OutsideSource
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import SourceError
from soci_pipeline.git import source
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.oci.platform import Platform
from tests.support.git_http import served_over_http
from tests.support.git_repositories import Repository, repository

LOGIN = GitCredentials(username="robot", password=SecretStr("hunter2"))
LINKS = {
    "current": "services/web",
    "again": "current",
    "services/api": "web",
    "services/up": "../services/web",
    "Containerfile": "services/web/Dockerfile",
    "nothing": "nowhere",
    "circle": "circle",
    "one": "two",
    "two": "one",
    "root": "/",
    "etc": "/etc",
    "above": "../services/web",
    "far": "services/../../etc",
}


@pytest.fixture
def app(tmp_path: Path) -> Repository:
    """A repository with links; ``root/app.git`` is a bare copy of it."""
    large = "FROM scratch\n" + "# a long file\n" * 1000
    made = repository(tmp_path / "app", {"services/web/Dockerfile": large, "services/web/app/main.py": ""})
    for name, target in LINKS.items():
        (made.path / name).symlink_to(target)
    made.commit({})
    made.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root/app.git"))
    made.git("-C", str(tmp_path / "root/app.git"), "config", "uploadpack.allowFilter", "true")
    return made


INSIDE = [
    ("current", "Dockerfile"),
    ("current/", "./Dockerfile"),
    ("again", "Dockerfile"),
    ("services/api", "Dockerfile"),
    ("services/up", "Dockerfile"),
    ("current/app", "../Dockerfile"),
    (".", "Containerfile"),
    (".", "current/Dockerfile"),
    ("services/web", "Dockerfile"),
]


@pytest.mark.parametrize(("context", "dockerfile"), INSIDE)
def test_a_link_inside_the_repository_is_found_and_built_from(
    app: Repository, tmp_path: Path, context: str, dockerfile: str
) -> None:
    found = source.resolve(str(app.path), files=(context, f"{context}/{dockerfile}"))
    tree = source.check_out(found, tmp_path / "tree")
    request = BuildRequest(
        source=tree, context=context, dockerfile=dockerfile, platform=Platform("linux", "amd64"), source_date_epoch=1
    )
    assert request.dockerfile_path() == (tree / "services/web/Dockerfile").resolve()


def test_the_targets_of_links_are_fetched_from_a_server_that_gives_no_single_objects(
    app: Repository, tmp_path: Path
) -> None:
    with served_over_http(tmp_path / "root", lambda *_: True) as address:
        source.resolve(f"{address}/app.git", files=("again", "again/Dockerfile"), credentials=LOGIN)


@pytest.mark.parametrize("context", ["root", "etc", "above", "far", "circle", "one", "etc/ssl"])
def test_a_link_that_leads_out_of_the_repository_is_refused_before_the_build(
    app: Repository, tmp_path: Path, context: str
) -> None:
    with pytest.raises(SourceError, match="leads out of the repository") as raised:
        source.resolve(str(app.path), files=(context,))
    assert "inside the repository" in str(raised.value.advice)
    if context in ("root", "etc", "far"):
        tree = source.check_out(source.resolve(str(app.path)), tmp_path / "tree")
        platform = Platform("linux", "amd64")
        with pytest.raises(OutsideSource):
            BuildRequest(source=tree, context=context, platform=platform, source_date_epoch=1).context_folder()


@pytest.mark.parametrize("path", ["nothing", "nothing/Dockerfile", "current/nothing", "current/Dockerfile/x", "absent"])
def test_a_link_that_leads_nowhere_is_named(app: Repository, path: str) -> None:
    with pytest.raises(SourceError, match=f"has no {path}"):
        source.resolve(str(app.path), files=(path,))
