"""Checks of the folder for ``--output`` before anything is built."""

import os
from pathlib import Path

from soci_pipeline.errors import InvalidInput


def check_output(folder: Path, source: str) -> None:
    """Raise `InvalidInput` unless the folder is empty or can be created, and is outside of a folder ``source``."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise output_exists(folder)
    if not folder.absolute().parent.is_dir():
        raise InvalidInput(f"--output {folder}: {folder.parent} does not exist", advice="Create it first.")
    written = folder if folder.is_dir() else folder.absolute().parent
    if not os.access(written, os.W_OK | os.X_OK):
        raise InvalidInput(f"--output {folder}: no permission to write to {written}", advice="Use another folder.")
    _check_outside(folder, source)


def _check_outside(folder: Path, source: str) -> None:
    if not source.startswith("/"):
        return
    top = Path(source).resolve()
    if folder.resolve().is_relative_to(top):
        raise InvalidInput(
            f"--output {folder} is inside SOURCE {top}: the next publication would contain it",
            advice=f"Use a folder outside of SOURCE, for example {top.parent / f'{top.name}-image'}.",
        )


def output_exists(folder: Path) -> InvalidInput:
    """Return the error for a folder that is not empty."""
    return InvalidInput(f"--output {folder} exists and is not empty", advice="Use a folder that does not exist.")
