"""Print every test with its tier: ``python -m tests.inventory [--against FILE]``.

Each line is the tier, the test's name with its parameters, and its module, with tabs between them. ``--against`` takes
the output of another commit and lists the names that only one of the two has; the exit status is 1 where one is gone.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.tiers import FOLDER, TIERS, tier_of


@dataclass(frozen=True, order=True)
class Test:
    """One test as pytest collects it."""

    tier: str
    name: str
    module: str

    def __str__(self) -> str:
        return f"{self.tier}\t{self.name}\t{self.module}"


def collected() -> list[Test]:
    """All tests, tier by tier; raises `CalledProcessError` where a module cannot be collected."""
    found = []
    for tier in TIERS:
        # One process for each: a tier collects without what the others import.
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", str(FOLDER / tier)]
        done = subprocess.run(argv, cwd=FOLDER.parent, check=True, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            module, separator, name = line.partition("::")
            if separator:
                found.append(Test(tier_of(FOLDER.parent / module), name, module))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the inventory, or what differs from another one."""
    parser = argparse.ArgumentParser(prog="python -m tests.inventory")
    parser.add_argument("--against", type=Path, metavar="FILE", help="the output of another commit")
    chosen = parser.parse_args(arguments)
    tests = collected()
    if chosen.against is None:
        print(*tests, sep="\n")
        return 0
    earlier = {line.split("\t")[1] for line in chosen.against.read_text().splitlines()}
    now = {test.name for test in tests}
    for name in sorted(earlier - now):
        print(f"gone\t{name}")
    for name in sorted(now - earlier):
        print(f"new\t{name}")
    print(f"{len(tests)} tests, {len(earlier - now)} names gone, {len(now - earlier)} new", file=sys.stderr)
    return 1 if earlier - now else 0


if __name__ == "__main__":
    sys.exit(main())
