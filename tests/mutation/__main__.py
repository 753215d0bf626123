"""Change single places of some modules and see whether their tests notice: ``python -m tests.mutation [MODULE...]``.

cosmic-ray makes the mutants, in an environment of its own (``make mutation`` installs it). At most 40 are drawn per
module, the same ones each time; they lie in a copy of the repository, where the module's tests run against each. The
diff of each survivor is printed. Exit status 1 where one is not explained in ``tests/mutation/modules.py``, 2 where the
tests fail without any change.
"""

import argparse
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.modules import EXPLAINED, MODULES

REPOSITORY = Path(__file__).resolve().parents[2]
COSMIC_RAY = REPOSITORY / ".cache" / "mutation" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Trial:
    """What the tests of a module made of one mutant: ``outcome`` is killed, survived or timed out."""

    operator: str
    diff: str
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """The trials of one module, and how many seconds they took."""

    module: str
    trials: tuple[Trial, ...]
    took_s: float

    def count(self, outcome: str) -> int:
        """How many mutants had this outcome."""
        return sum(each.outcome == outcome for each in self.trials)

    def survivors(self) -> list[Trial]:
        """The mutants that no test noticed."""
        return [each for each in self.trials if each.outcome == "survived"]

    def gaps(self) -> list[Trial]:
        """The survivors that nobody has explained."""
        return [each for each in self.survivors() if each.reason is None]


class TestsFail(Exception):
    """The tests of a module fail without any change to it."""


def try_module(module: str, count: int, seed: int) -> Result:
    """Run the tests of a module against its mutants, in a copy of the repository."""
    started = time.monotonic()
    path = Path("src/soci_pipeline", f"{module}.py")
    source = (REPOSITORY / path).read_text()
    mutants = _mutants(path, count, seed)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        _copy_repository(Path(folder))
        versions = [source, *(each["source"] for each in mutants)]
        outcomes = _outcomes(Path(folder), path, [f"tests/unit/{name}.py" for name in MODULES[module]], versions)
        if outcomes[0] != "survived":
            log = Path(folder, "trial.log").read_text(errors="replace")
            raise TestsFail(f"the tests of {module} fail without a mutant:\n{log[-4000:]}")
    trials = (_trial(module, mutant, source, outcome) for mutant, outcome in zip(mutants, outcomes[1:], strict=True))
    return Result(module, tuple(trials), time.monotonic() - started)


def _mutants(path: Path, count: int, seed: int) -> list[dict[str, str]]:
    argv = [str(COSMIC_RAY), "-m", "tests.mutation.mutants", str(path), str(count), str(seed)]
    done = subprocess.run(argv, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    mutants: list[dict[str, str]] = json.loads(done.stdout)
    return mutants


def _copy_repository(folder: Path) -> None:
    """Copy what git tracks, and what it would track."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    for name in filter(None, done.stdout.split("\0")):
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def _outcomes(folder: Path, path: Path, tests: Sequence[str], versions: Sequence[str]) -> list[str]:
    """Run the tests against each version of the file; the first must pass, or the others are not tried."""
    # As in the gate: property tests draw the same examples each time. The copy is found before an installed project.
    environment = os.environ | {
        "CI": "true",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)]),
        "TMPDIR": str(folder / "tmp"),
    }
    environment.pop("PYTHONPYCACHEPREFIX", None)
    (folder / "tmp").mkdir()
    lines = folder / "versions.jsonl"
    lines.write_text("".join(json.dumps(each) + "\n" for each in versions))
    argv = [sys.executable, "-P", "-m", "tests.mutation.trial", str(path), *tests]
    with lines.open() as stream:
        done = subprocess.run(
            argv, cwd=folder, env=environment, stdin=stream, stdout=subprocess.PIPE, text=True, check=True
        )
    return done.stdout.split("\n")[:-1]


def _trial(module: str, mutant: dict[str, str], source: str, outcome: str) -> Trial:
    diff = list(difflib.unified_diff(source.splitlines(), mutant["source"].splitlines(), module, module, "", "", 2, ""))
    before = "\n".join(line[1:].strip() for line in diff[2:] if line.startswith("-"))
    after = "\n".join(line[1:].strip() for line in diff[2:] if line.startswith("+"))
    reasons = [each.reason for each in EXPLAINED if (each.module, each.before, each.after) == (module, before, after)]
    return Trial(mutant["operator"], "\n".join(diff), outcome, reasons[0] if reasons else None)


def _report(result: Result) -> None:
    """Print the survivors of a module, those that are explained with their reason."""
    for each in result.survivors():
        print(f"\n{each.operator}: {each.reason or 'no test notices'}\n{each.diff}", flush=True)


def _table(results: Sequence[Result]) -> str:
    rows: list[tuple[str, ...]] = [("module", "mutants", "killed", "survived", "explained", "timed out", "seconds")]
    for each in results:
        explained = len(each.survivors()) - len(each.gaps())
        counts = (len(each.trials), *map(each.count, ("killed", "survived")), explained, each.count("timed out"))
        rows.append((each.module, *map(str, counts), f"{each.took_s:.0f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if cell is row[0] else cell.rjust(width) for cell, width in zip(row, widths, strict=True)
        )
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the modules, some at a time, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"one of {', '.join(MODULES)}; default: all")
    parser.add_argument("--mutants", type=int, default=40, help="at most so many per module (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws others (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="modules at a time (default: one per CPU)"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.modules) - set(MODULES):
        parser.error(f"not one of the modules: {', '.join(sorted(unknown))}")
    if not COSMIC_RAY.exists():
        parser.error(f"{COSMIC_RAY.relative_to(REPOSITORY)} is missing: run `make mutation`")
    started = time.monotonic()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        waiting = [pool.submit(try_module, each, chosen.mutants, chosen.seed) for each in chosen.modules or MODULES]
        try:
            for each in as_completed(waiting):
                _report(each.result())
        except TestsFail as error:
            pool.shutdown(cancel_futures=True)
            print(error, file=sys.stderr)
            return 2
    results = [each.result() for each in waiting]
    print(f"\n{_table(results)}\n{time.monotonic() - started:.0f} s in all")
    return 1 if any(result.gaps() for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
