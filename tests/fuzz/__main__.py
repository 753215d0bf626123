"""Fuzz the readers of hostile bytes: ``python -m tests.fuzz --seconds N [--target NAME] [--corpus FOLDER]``.

The seconds are shared out among the targets. Exit status 1 where one found a crash, a hang or too much memory; the
input that did it lies in the folder that the output names, and ``python -m tests.fuzz.one NAME FILE`` runs it again.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY / ".cache" / "fuzz"
_STARTING = 60  # seconds for the imports and the seeds, on a busy machine
_HANG = 20
_MEMORY_MB = 1024


def fuzz(name: str, seconds: int, corpus: Path) -> bool:
    """Run one target for some seconds; whether it found nothing."""
    inputs, found = corpus / name, corpus / f"{name}-found"
    for folder in (inputs, found):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (inputs / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)
    # fmt: off
    command = [
        sys.executable, "-m", "tests.fuzz.one", name, f"-max_total_time={seconds}", f"-timeout={_HANG}",
        f"-rss_limit_mb={_MEMORY_MB}", "-max_len=65536", f"-artifact_prefix={found}/", "-print_final_stats=1",
        str(inputs),
    ]
    # fmt: on
    try:
        done = subprocess.run(command, cwd=REPOSITORY, check=False, timeout=seconds + _HANG + _STARTING)
    except subprocess.TimeoutExpired:
        print(f"{name}: did not end in time", file=sys.stderr)
        return False
    if done.returncode:
        print(f"{name}: found something; see {found}", file=sys.stderr)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the targets one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, required=True, help="for all targets together")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="one of them; may be repeated")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where inputs are kept from run to run")
    chosen = parser.parse_args(arguments)
    names = chosen.target or sorted(TARGETS)
    each = max(chosen.seconds // len(names), 1)
    # Every target has its turn, whatever the others found.
    clean = [fuzz(name, each, chosen.corpus) for name in names]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
