"""A build context or a Dockerfile that is reached through symbolic links: inside of the repository it works."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from soci_pipeline.builders.errors import OutsideSource
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import SourceError
from soci_pipeline.git import source
from soci_pipeline.git.program import Git
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
    "longer": "longer/still",
    "root": "/",
    "etc": "/etc",
    "above": "../services/web",
    "far": "services/../../etc",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the repository is, which no test changes."""
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="module")
def app(folder: Path) -> Repository:
    """A repository with links; ``root/app.git`` is a bare copy of it."""
    large = "FROM scratch\n" + "# a long file\n" * 1000
    made = repository(folder / "app", {"services/web/Dockerfile": large, "services/web/app/main.py": ""})
    for name, target in LINKS.items():
        (made.path / name).symlink_to(target)
    made.commit({})
    made.git("clone", "--quiet", "--bare", ".", str(folder / "root/app.git"))
    made.git("-C", str(folder / "root/app.git"), "config", "uploadpack.allowFilter", "true")
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
    app: Repository, folder: Path
) -> None:
    with served_over_http(folder / "root", lambda *_: True) as address:
        source.resolve(f"{address}/app.git", files=("again", "again/Dockerfile"), credentials=LOGIN)


@pytest.mark.parametrize("context", ["root", "etc", "above", "far", "circle", "one", "longer", "etc/ssl"])
def test_a_link_that_leads_out_of_the_repository_is_refused_before_the_build(
    app: Repository, tmp_path: Path, context: str
) -> None:
    with pytest.raises(SourceError, match="points outside of the repository") as raised:
        source.resolve(str(app.path), files=(context,))
    assert "in the repository" in str(raised.value.advice)
    if context in ("root", "etc", "far"):
        tree = source.check_out(source.resolve(str(app.path)), tmp_path / "tree")
        platform = Platform("linux", "amd64")
        with pytest.raises(OutsideSource):
            BuildRequest(source=tree, context=context, platform=platform, source_date_epoch=1).context_folder()


@pytest.mark.parametrize(
    ("files", "most"),
    [
        pytest.param(["again", "again/Dockerfile", "./again/app"], 9, id="links"),
        pytest.param(["circle"], 2, id="circle"),
        pytest.param(["longer"], 2, id="circle that gets longer"),
    ],
)
def test_git_is_asked_once_for_each_entry_and_link(
    app: Repository, monkeypatch: pytest.MonkeyPatch, files: list[str], most: int
) -> None:
    asked: list[tuple[str, ...]] = []
    run = Git.run

    def noted(git: Git, *arguments: str, **options: Any) -> str:
        asked.append(arguments)
        return run(git, *arguments, **options)

    monkeypatch.setattr(Git, "run", noted)
    with suppress(SourceError):
        source.resolve(str(app.path), files=files)
    about = [arguments for arguments in asked if arguments[2] in ("ls-tree", "cat-file")]
    assert len(about) <= most
    assert len(set(about)) == len(about)
    assert sum("fetch" in arguments for arguments in asked) == 2


@pytest.mark.parametrize("path", ["nothing", "nothing/Dockerfile", "current/nothing", "current/Dockerfile/x", "absent"])
def test_a_link_that_leads_nowhere_is_named(app: Repository, path: str) -> None:
    with pytest.raises(SourceError, match=f"has no {path}"):
        source.resolve(str(app.path), files=(path,))
