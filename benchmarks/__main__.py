"""`python -m benchmarks`: run all benchmarks and write docs/benchmarks.md and docs/benchmarks.svg, or try some of them.

The docstring of a module ``benchmarks/bench_<name>.py`` says what it compares; the module defines ``PARTS``. Only a
complete run at full size writes the documents.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Row, machine, plot, summary, table
from benchmarks.parts import LIMIT_SECONDS, Parts, Workbench, rows_of
from local_stack.toolchain import Toolchain

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAMES = ("ztoc", "push", "republish", "index", "orchestration")
# Run by name only, since it takes longer than all the others together.
LONG = ("queue",)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join((*NAMES, *LONG))}; {', '.join(NAMES)} by default"
    )
    parser.add_argument("--part", help="only the parts whose name holds this")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the data, to try a benchmark out with less")
    parser.add_argument("--no-write", action="store_true", help="print the tables and leave docs/ as it is")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*NAMES, *LONG}
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    if not 0 < arguments.scale <= 1:
        parser.error("--scale takes a number above 0 and up to 1")
    whole = not arguments.names and arguments.part is None and arguments.scale == 1
    started, load = time.monotonic(), os.getloadavg()[0]
    sections: list[str] = []
    rows: list[Row] = []
    for name in arguments.names or NAMES:
        found, section = _benchmark(name, arguments.part, arguments.scale)
        rows += found
        sections.append(section)
    if whole and not arguments.no_write:
        minutes = (time.monotonic() - started) / 60
        (DOCS / "benchmarks.md").write_text(_document(sections, summary(rows), minutes=minutes, load=load))
        plot(rows, DOCS / "benchmarks.svg")
    return 0


def _benchmark(name: str, wanted: str | None, scale: float) -> tuple[list[Row], str]:
    module = importlib.import_module(f"benchmarks.bench_{name}")
    parts: Parts = module.PARTS
    limit: float = getattr(module, "LIMIT_SECONDS", LIMIT_SECONDS)
    rows: list[Row] = []
    print(f"==> {name}", file=sys.stderr, flush=True)
    for part, measure in parts.items():
        if wanted is None or wanted in part:
            with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", dir=_scratch()) as folder:
                rows += rows_of(part, measure, Workbench(Path(folder), scale), limit=limit)
    print(table(rows), flush=True)
    return rows, f"## {name}\n\n{(module.__doc__ or '').strip()}\n\n{table(rows)}"


def _scratch() -> Path:
    folder = Toolchain().folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _document(sections: Sequence[str], verdict: str, *, minutes: float, load: float) -> str:
    head = (
        "# Benchmarks\n\nWritten by `make bench`: every figure beside the tool or bound that it is compared with, "
        f"measured in the same run, which took {minutes:.0f} minutes. {verdict}\n\n"
        f"Machine: {machine()}. Load average when it began: {load:.1f}.\n\n![ratios](benchmarks.svg)\n"
    )
    return "\n".join([head, *[section + "\n" for section in sections]])


if __name__ == "__main__":
    sys.exit(main())
