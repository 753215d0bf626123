from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from soci_pipeline.builders.errors import ContextMissing, DockerfileMissing, OutsideSource
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import InvalidInput
from tests.support.images import AMD64, ARM64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    (tree / "app").mkdir(parents=True)
    (tree / "Dockerfile").write_text("FROM scratch\n")
    (tree / "app" / "Dockerfile.v2").write_text("FROM scratch\n")
    return tree


def request(source: Path, **fields: Any) -> BuildRequest:
    return BuildRequest(**{"source": source, "platform": ARM64, "source_date_epoch": 1, **fields})


def test_the_defaults_are_the_top_of_the_source(source: Path) -> None:
    assert request(source).dockerfile_path() == source / "Dockerfile"
    assert request(source).context_folder() == source


@pytest.mark.parametrize("dockerfile", ["Dockerfile.v2", "../Dockerfile"])
def test_the_dockerfile_is_relative_to_the_context_and_may_lie_above_it(source: Path, dockerfile: str) -> None:
    assert request(source, context="app", dockerfile=dockerfile).dockerfile_path().is_file()


def test_a_missing_dockerfile_is_named_before_anything_is_built(source: Path) -> None:
    with pytest.raises(DockerfileMissing, match="'Containerfile'"):
        request(source, dockerfile="Containerfile").check()


def test_a_missing_context_is_named(source: Path) -> None:
    with pytest.raises(ContextMissing, match="'web'"):
        request(source, context="web").check()


@pytest.mark.parametrize("path", ["..", "../..", "app/../..", "/etc", "/"])
def test_a_context_outside_the_source_is_refused(source: Path, path: str) -> None:
    with pytest.raises(OutsideSource):
        request(source, context=path).check()


@pytest.mark.parametrize("path", ["../Dockerfile", "/etc/passwd", "app/../../Dockerfile"])
def test_a_dockerfile_outside_the_source_is_refused(source: Path, path: str) -> None:
    (source.parent / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(OutsideSource):
        request(source, dockerfile=path).check()


@pytest.mark.parametrize("name", ["context", "dockerfile"])
def test_a_link_that_leads_out_of_the_source_is_refused(source: Path, name: str) -> None:
    outside = source.parent / "outside"
    outside.mkdir()
    (outside / "Dockerfile").write_text("FROM scratch\n")
    (source / "link").symlink_to(outside)
    fields = {"context": "link"} if name == "context" else {"dockerfile": "link/Dockerfile"}
    with pytest.raises(OutsideSource):
        request(source, **fields).check()


def test_a_link_in_a_circle_is_refused(source: Path) -> None:
    (source / "a").symlink_to("b")
    (source / "b").symlink_to("a")
    with pytest.raises(InvalidInput):
        request(source, context="a").check()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(source: Path, path: str) -> None:
    with pytest.raises(InvalidInput):
        request(source, context=path).check()


@pytest.mark.parametrize(
    "fields",
    [
        {"build_args": {"A B": "1"}},
        {"build_args": {"--flag": "1"}},
        {"secrets": {"a,src=/etc/shadow": "/x"}},
        {"source_date_epoch": -1},
        {"unknown": 1},
    ],
)
def test_names_that_could_be_read_as_something_else_are_refused(source: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(source, **fields)


def test_a_secret_whose_file_is_gone_is_named_without_its_path(source: Path) -> None:
    with pytest.raises(InvalidInput, match="'token'") as caught:
        request(source, secrets={"token": source / "nothing-here"}).check()
    assert "nothing-here" not in str(caught.value)


def test_a_template_is_filled_and_other_braces_are_kept(source: Path) -> None:
    filled = request(source).filled("out/{platform}/{os}-{arch}{variant}/{sha}.tar")
    assert filled == "out/linux-arm64/linux-arm64/{sha}.tar"


def test_an_ignore_file_belongs_to_the_dockerfile_that_it_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    for name in ("Dockerfile", "web.Dockerfile", "common/Dockerfile"):
        (tmp_path / name).write_text("FROM scratch\n")
    (tmp_path / "web.Dockerfile.dockerignore").write_text(".env\n")
    plain = BuildRequest(source=tmp_path, platform=AMD64, source_date_epoch=1)
    assert plain.ignore_file() is None
    assert plain.model_copy(update={"dockerfile": "common/Dockerfile"}).ignore_file() is None
    web = plain.model_copy(update={"dockerfile": "web.Dockerfile"})
    assert web.ignore_file() == tmp_path.resolve() / "web.Dockerfile.dockerignore"


def test_an_ignore_file_beside_a_link_to_the_dockerfile_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "common.Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "web.Dockerfile").symlink_to("common.Dockerfile")
    request = BuildRequest(source=tmp_path, platform=AMD64, source_date_epoch=1, dockerfile="web.Dockerfile")
    request.check()
    (tmp_path / "web.Dockerfile.dockerignore").write_text(".env\n")
    with pytest.raises(InvalidInput, match=r"'web\.Dockerfile\.dockerignore' would be ignored") as caught:
        request.check()
    assert "'common.Dockerfile.dockerignore'" in str(caught.value.advice)
    (tmp_path / "common.Dockerfile.dockerignore").symlink_to("web.Dockerfile.dockerignore")
    request.check()
