"""Measure how far each module of the library and ``local_stack`` is covered by its own tests.

``python -m tests.module_coverage [TIER ...]``. A module belongs to the tier with a test file of its name
(``tests/service/aws/test_ecr.py`` owns ``soci_pipeline/aws/ecr.py``). If several tiers have one, or none has, it
belongs to the one of them with the highest coverage. Programs started by the tests count too. The exit status is 1 if
the owner of a module covers less than 90 % of its lines.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverage import Coverage

from tests.support.tiers import FOLDER

ROOT = FOLDER.parent
LIBRARY = ROOT / "src" / "soci_pipeline"
LOCAL_STACK = ROOT / "local_stack"
DATA = ROOT / ".cache" / "coverage"
TIERS = ("unit", "service", "real")
LEAST = 90.0
_GROUPED = ["--dist", "loadgroup", "--no-loadscope-reorder"]


@dataclass(frozen=True, order=True)
class Module:
    """The coverage of one module by one tier; ``reached`` is in per cent of its ``lines``."""

    reached: float
    name: str
    tier: str
    lines: int

    def __str__(self) -> str:
        return f"{self.reached:6.1f} %  {self.lines:5d} lines  {self.tier:8s} {self.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tiers under coverage, and print the coverage of the modules by their own tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.module_coverage")
    parser.add_argument("tiers", nargs="*", metavar="TIER", help=f"run only these of {', '.join(TIERS)}")
    parser.add_argument("--report", action="store_true", help="run nothing: report what was measured before")
    chosen = parser.parse_args(arguments)
    for tier in [] if chosen.report else chosen.tiers or TIERS:
        _measure(tier)
    found = sorted(_modules({tier: _lines_of(tier) for tier in TIERS if _data(tier).exists()}))
    print(*found, sep="\n")
    low = [module for module in found if module.reached < LEAST]
    print(f"{len(found)} modules, {len(low)} of them below {LEAST:g} %")
    return 1 if low else 0


def _data(tier: str) -> Path:
    return DATA / tier


def _measure(tier: str) -> None:
    """Run a tier; raise `CalledProcessError` if a test fails."""
    DATA.mkdir(parents=True, exist_ok=True)
    for old in DATA.glob(f"{tier}*"):
        old.unlink()
    options = [f"--data-file={_data(tier)}"]
    spread = (
        ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"] if tier == "unit" else ["-n", "auto", *_GROUPED]
    )
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{tier}", *spread]
    subprocess.run([sys.executable, "-m", "coverage", "run", *options, *pytest], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "coverage", "combine", "-q", *options], cwd=ROOT, check=True)


def _lines_of(tier: str) -> dict[str, tuple[int, int]]:
    """Return the number of lines and of covered lines of each module."""
    measured = Coverage(data_file=str(_data(tier)))
    measured.load()
    found = {}
    for name, path in _sources().items():
        _, lines, _, missed, _ = measured.analysis2(str(path))
        found[name] = (len(lines), len(lines) - len(missed))
    return found


def _sources() -> dict[str, Path]:
    """Return the modules by the path that their tests mirror."""
    library = {path.relative_to(LIBRARY).as_posix(): path for path in sorted(LIBRARY.rglob("*.py"))}
    return library | {path.relative_to(ROOT).as_posix(): path for path in sorted(LOCAL_STACK.rglob("*.py"))}


def _modules(measured: Mapping[str, Mapping[str, tuple[int, int]]]) -> list[Module]:
    found = []
    for name in _sources():
        shares = {tier: _share(*lines[name]) for tier, lines in measured.items()}
        tier = owner(name, shares)
        # A tier that was not measured gives no information about the modules that it owns.
        if tier in measured and (lines := measured[tier][name][0]):
            found.append(Module(shares[tier], name, tier, lines))
    return found


def _share(lines: int, reached: int) -> float:
    return 100.0 * reached / lines if lines else 100.0


def owner(module: str, shares: Mapping[str, float]) -> str:
    """Return the tier that must cover a module (a path below the sources), given the coverage by each tier."""
    path = Path(module)
    mirrored = path.parent / f"test_{path.stem.lstrip('_')}.py"
    named = [tier for tier in TIERS if (FOLDER / tier / mirrored).exists()]
    return max(named or shares, key=lambda tier: shares.get(tier, 0.0))


if __name__ == "__main__":
    raise SystemExit(main())
