"""The test tiers: one folder each, named after what its tests need."""

import os
import sys
from collections.abc import Collection, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1]
TIERS = ("unit", "service", "real", "deep")
_IMPORTED: list[str] = []
_STAND_INS = Path(__file__).resolve().parent / "forbidden"
NOT_IN_UNIT = frozenset({"boto3", "botocore", "moto", "prefect", "prefect_aws"})
"""Modules that unit tests must not import: they load slowly and belong to the service tier."""


def tier_of(path: Path) -> str:
    """Return the tier of a test file; raise `ValueError` if it is in none."""
    inside = path.absolute().relative_to(FOLDER).parts
    if not inside or inside[0] not in TIERS:
        raise ValueError(f"{path} is in none of the tiers {', '.join(TIERS)}")
    return inside[0]


def third_of(path: Path) -> int:
    """Return the third of the deep tier that a module belongs to: 1, 2 or 3, by its position among the modules."""
    modules = sorted(module.name for module in (FOLDER / "deep").glob("test_*.py"))
    return modules.index(path.name) % 3 + 1


class _ForbiddenModule(Loader):
    """Rejects the import of a package and records it; only searching for the package is allowed."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        _IMPORTED.append(spec.name)
        raise ImportError(_message(spec.name))

    def exec_module(self, module: ModuleType) -> None:
        """Never reached."""


class _Finder(MetaPathFinder):
    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname in self.names else None
        if found is not None:
            found.loader = _ForbiddenModule()
        return found


def forbid(names: Collection[str]) -> None:
    """Make imports of these packages fail from now on, in this process and in programs that tests start."""
    sys.meta_path.insert(0, _Finder(names))
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_STAND_INS), *([earlier] if earlier else [])])


def forbidden_import() -> str | None:
    """Return the error for a recorded forbidden import, even if a test caught the exception; None if there is none."""
    return _message(_IMPORTED[0]) if _IMPORTED else None


def _message(name: str) -> str:
    return f"the unit tier imports {name}; move the test that does to tests/service"
