"""The servers rest on documented interfaces: a release of a dependency must not change what they bound."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "src" / "soci_pipeline"
SERVERS = [*(LIBRARY / "http_server").glob("*.py"), *(LIBRARY / "registry" / "server").glob("*.py")]
SERVERS += [*(LIBRARY / "webhook").rglob("*.py")]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _private_uses(tree: ast.AST) -> Iterator[str]:
    """Names with a leading underscore that are imported, or read of anything but ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"from {node.module} import {each.name}" for each in node.names if _is_private(each.name))
            if not (node.module or "").startswith("soci_pipeline.") and any(
                part.startswith("_") for part in (node.module or "").split(".")
            ):
                yield f"from {node.module} import …"
        elif isinstance(node, ast.Attribute) and _is_private(node.attr):
            owner = node.value
            if not isinstance(owner, ast.Name) or owner.id not in ("self", "cls"):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", SERVERS, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_server_uses_no_private_name_of_anything(path: Path) -> None:
    assert list(_private_uses(ast.parse(path.read_text()))) == []


def test_no_module_subclasses_another_servers_protocol() -> None:
    users = [path for path in LIBRARY.rglob("*.py") if "uvicorn" in path.read_text()]
    assert users == []
