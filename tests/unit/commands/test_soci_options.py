"""The options that say how layers are indexed."""

from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from tests.support.images import image_layout


def test_a_span_size_that_no_checkpoint_can_hold_is_refused_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = image_layout(tmp_path / "layout")
    argv = ["convert", str(source.path), str(tmp_path / "out"), "--span-size", str(1 << 62)]
    assert main(argv) == ExitCode.USAGE
    assert "Invalid value for '--span-size'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
