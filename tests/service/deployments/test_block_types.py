"""The files of the block types, held against the installed prefect-aws."""

import json

from deployments.block_types import FOLDER, documents


def test_the_files_say_what_the_installed_prefect_aws_defines() -> None:
    files = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    assert files == documents(), "run `python -m deployments.block_types`"
