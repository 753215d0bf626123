"""`python -m benchmarks`: run all of them, or those named, and write docs/benchmarks.md and docs/benchmarks.svg.

A module ``benchmarks/bench_<name>.py`` has ``run(folder: Path) -> Sequence[Figure]`` and says in its docstring what it
compares; ``folder`` is a scratch folder that is removed afterwards.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, machine, plot, table

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
NAMES = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--no-write", action="store_true", help="print the table and leave docs/ as it is")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    sections: list[str] = []
    figures: list[Figure] = []
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        print(f"==> {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=HERE.parent / ".toolchain") as folder:
            found = list(module.run(Path(folder)))
        figures += found
        sections.append(f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{table(found)}")
        print(table(found), flush=True)
    if not arguments.no_write:
        _write(sections, figures)
    return 0


def _write(sections: list[str], figures: list[Figure]) -> None:
    head = (
        "# Benchmarks\n\nWritten by `make bench`: every figure beside the tool that it is compared with, "
        f"measured in the same run.\n\nMachine: {machine()}.\n\n![ratios](benchmarks.svg)\n"
    )
    (DOCS / "benchmarks.md").write_text("\n".join([head, *[section + "\n" for section in sections]]))
    plot(figures, DOCS / "benchmarks.svg")


if __name__ == "__main__":
    sys.exit(main())
