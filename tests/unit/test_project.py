"""Where the project is looked for."""

from pathlib import Path

import pytest

from soci_pipeline.errors import StackError
from soci_pipeline.project import HOME, project_folder

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout beside the current folder, which is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkout"
    (folder / "flows").mkdir(parents=True)
    (folder / "prefect.yaml").touch()
    return folder


def test_the_environment_comes_first(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert project_folder({HOME: str(checkout)}) == checkout


def test_a_named_folder_is_absolute_in_the_answer(checkout: Path) -> None:
    assert project_folder({HOME: "checkout"}) == checkout


def test_a_named_folder_that_is_none_is_not_passed_over(checkout: Path) -> None:
    with pytest.raises(StackError, match="not a clone of the project") as caught:
        project_folder({HOME: str(checkout / "flows")})
    assert str(checkout / "flows") in caught.value.reason
    assert HOME in str(caught.value.advice)


def test_the_current_folder_comes_before_the_one_of_the_package(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project_folder({}) == REPOSITORY
    monkeypatch.chdir(checkout)
    assert project_folder({}) == checkout
