"""Locate the project: wheels contain neither the flows nor `prefect.yaml`, so those run from a checkout."""

import os
from collections.abc import Mapping
from pathlib import Path

from soci_pipeline.errors import StackError

HOME = "SOCI_PIPELINE_HOME"
"""The variable with the path of the checkout; if set, no other folder is tried."""


def project_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the checkout from `HOME`, else the current folder, else the work tree that the package is installed from.

    Raises `StackError` if none of them is a checkout.
    """
    named = (os.environ if environment is None else environment).get(HOME)
    choices = [Path(named).absolute()] if named else [Path.cwd(), Path(__file__).resolve().parents[2]]
    for folder in choices:
        if (folder / "prefect.yaml").is_file() and (folder / "flows").is_dir():
            return folder
    raise StackError(
        f"not a clone of the project: {', '.join(map(str, choices))}",
        advice=f"Run this from a clone of the project, or set {HOME} to one. A worker can also fetch it from git: "
        "SOCI_PIPELINE_REPOSITORY and SOCI_PIPELINE_COMMIT.",
    )
