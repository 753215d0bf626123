"""The direction of imports: library <- tasks <- flows, and no module named after a package that can be imported."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def _imports(folder: str) -> Iterator[tuple[Path, str]]:
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("src/soci_pipeline", {"prefect", "prefect_aws", "tasks", "flows", "deployments"}),
        ("tasks", {"flows", "deployments"}),
    ],
)
def test_a_ring_does_not_import_from_a_ring_outside_of_it(folder: str, forbidden: set[str]) -> None:
    found = [f"{path}: {name}" for path, name in _imports(folder) if name.split(".")[0] in forbidden]
    assert found == []


@pytest.mark.parametrize(("room", "forbidden"), [("registry", "aws"), ("build", "publish")])
def test_a_room_does_not_import_from_one_that_uses_it(room: str, forbidden: str) -> None:
    names = list(_imports(f"src/soci_pipeline/{room}"))
    assert names
    found = [f"{path}: {name}" for path, name in names if name.startswith(f"soci_pipeline.{forbidden}")]
    assert found == []


def test_the_outer_rings_exist_and_use_the_inner_ones() -> None:
    used = {name.split(".")[0] for _, name in _imports("flows")}
    assert {"prefect", "tasks", "soci_pipeline"} <= used


def test_no_flow_module_hides_an_importable_package() -> None:
    names = [path.stem for path in (REPOSITORY / "flows").glob("*.py") if path.stem != "__init__"]
    assert names
    hidden = [
        name for name in names if (found := importlib.util.find_spec(name)) and "site-packages" in str(found.origin)
    ]
    assert hidden == []


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("doctor", ("prefect", "boto3", "fastapi")),
        # Half of the time that a small layer takes was the import of these.
        ("ztoc", ("pydantic", "httpx", "importlib.metadata")),
    ],
)
def test_a_command_starts_without_what_it_does_not_need(command: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, soci_pipeline.cli as c; c.main([{command!r}, '--help'])"
    listing = f"import sys; print([m for m in {heavy!r} if m in sys.modules])"
    script = f"try:\n    {code}\nexcept SystemExit:\n    {listing}"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
