"""The names that the package offers: all there, and imported late. `test_site.py` checks their reference."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import soci_pipeline
from soci_pipeline.registry.server import serving
from tests.support.images import index_layout


def test_every_public_name_is_there_and_no_other_is_promised() -> None:
    assert soci_pipeline.__all__ == sorted(soci_pipeline.__all__)
    for name in soci_pipeline.__all__:
        assert getattr(soci_pipeline, name).__doc__, f"{name} says nothing of itself"
    with pytest.raises(AttributeError, match="no attribute 'pull_image'"):
        soci_pipeline.pull_image  # noqa: B018


def test_what_a_type_checker_sees_is_what_is_imported() -> None:
    (guarded,) = [
        node
        for node in ast.parse(Path(str(soci_pipeline.__file__)).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    declared = {
        alias.name: str(node.module)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == {name: f"soci_pipeline.{module}" for name, module in soci_pipeline._MODULES.items()}
    assert sorted(declared) == soci_pipeline.__all__


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import soci_pipeline, sys; print(*[name for name in sys.modules if name.startswith('soci_pipeline.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_example_in_the_packages_docstring_publishes_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index_layout(tmp_path / "image")
    monkeypatch.chdir(tmp_path)
    example = str(soci_pipeline.__doc__).split("```python\n")[1].split("```")[0]
    with serving(tmp_path / "registry") as address:
        exec(example.replace("127.0.0.1:5000", address), {})
    assert capsys.readouterr().out.startswith("True ")
