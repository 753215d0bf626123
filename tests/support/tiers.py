"""The tiers of the tests: one folder each, named for what its tests need."""

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
"""What no unit test may import: it takes seconds to load, and belongs to the service tier."""


def tier_of(path: Path) -> str:
    """The tier of a file of tests; raises `ValueError` for one that lies in none."""
    inside = path.absolute().relative_to(FOLDER).parts
    if not inside or inside[0] not in TIERS:
        raise ValueError(f"{path} is in none of the tiers {', '.join(TIERS)}")
    return inside[0]


def third_of(path: Path) -> int:
    """Which third of the deep tier a module belongs to: 1, 2 or 3, by its place among the modules."""
    modules = sorted(module.name for module in (FOLDER / "deep").glob("test_*.py"))
    return modules.index(path.name) % 3 + 1


class _ForbiddenModule(Loader):
    """Refuses to load a package and remembers that it was asked for; looking for the package is no harm."""

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
    """Let an import of these packages fail from now on, in this process and in programs that tests start."""
    sys.meta_path.insert(0, _Finder(names))
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_STAND_INS), *([earlier] if earlier else [])])


def forbidden_import() -> str | None:
    """Why the run must fail, even if a test caught the error of an import that `forbid` forbids."""
    return _message(_IMPORTED[0]) if _IMPORTED else None


def _message(name: str) -> str:
    return f"the unit tier imports {name}; move the test that does to tests/service"
