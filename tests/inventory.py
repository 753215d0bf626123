"""Print every test with its tier: ``python -m tests.inventory [--against FILE]``.

Each line has the tier, the test's name with its parameters, and its module, separated by tabs. ``--against`` takes the
output of another commit and lists the tests whose number of cases differs; the exit status is 1 if one is gone.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.tiers import FOLDER, TIERS, tier_of


@dataclass(frozen=True, order=True)
class Test:
    """One test as collected by pytest."""

    tier: str
    name: str
    module: str

    def __str__(self) -> str:
        return f"{self.tier}\t{self.name}\t{self.module}"


def collected() -> list[Test]:
    """Collect all tests, tier by tier; raise `CalledProcessError` if a module cannot be collected."""
    found = []
    for tier in TIERS:
        # One process for each: a tier must be collectable without the imports of the others.
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", str(FOLDER / tier)]
        done = subprocess.run(argv, cwd=FOLDER.parent, check=True, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            module, separator, name = line.partition("::")
            if separator:
                found.append(Test(tier_of(FOLDER.parent / module), name, module))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the inventory, or the differences to another one."""
    parser = argparse.ArgumentParser(prog="python -m tests.inventory")
    parser.add_argument("--against", type=Path, metavar="FILE", help="the output of another commit")
    chosen = parser.parse_args(arguments)
    tests = collected()
    if chosen.against is None:
        print(*tests, sep="\n")
        return 0
    return _compare(Counter(line.split("\t")[1] for line in chosen.against.read_text().splitlines()), tests)


def _compare(earlier: Counter[str], tests: Sequence[Test]) -> int:
    """Print differences by name and number of cases; the ids of cases depend on pytest's version."""
    now = Counter(_function(test.name) for test in tests)
    before: Counter[str] = Counter()
    for name, count in earlier.items():
        before[_function(name)] += count
    for name in sorted(before.keys() | now.keys()):
        if before[name] != now[name]:
            print(f"{name}\t{before[name]} -> {now[name]} cases")
    gone = before.keys() - now.keys()
    print(f"{len(tests)} tests, {len(gone)} names gone, {len(now.keys() - before.keys())} new", file=sys.stderr)
    return 1 if gone else 0


def _function(name: str) -> str:
    return name.partition("[")[0]


if __name__ == "__main__":
    sys.exit(main())
