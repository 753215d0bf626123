"""Fuzz one target in this process: ``python -m tests.fuzz.one TARGET [libFuzzer's options] CORPUS``.

A process of its own for each, since the fuzzer ends the process that it runs in.
"""

import sys

import atheris

with atheris.instrument_imports(include=["soci_pipeline.soci"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
