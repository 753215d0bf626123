"""The examples are built by their own builders as far as that needs no engine."""

import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.builders.import_image import import_image
from soci_pipeline.builders.prebuilt import PrebuiltBuilder
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.oci.platform import Platform
from tests.support.images import AMD64, ARM64

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.mark.parametrize("platform", [AMD64, ARM64])
def test_the_script_makes_archives_that_prebuilt_takes(tmp_path: Path, platform: Platform) -> None:
    folder = EXAMPLES / "prebuilt-script"
    archive = tmp_path / f"image-{platform.slug}.tar"
    subprocess.run([sys.executable, folder / "make_image.py", folder / "content", str(platform), archive], check=True)
    asked = BuildRequest(source=tmp_path, platform=platform, source_date_epoch=1, prebuilt="image-{platform}.tar")
    path = PrebuiltBuilder().build(asked, tmp_path / "out")
    layout = import_image(path, tmp_path / "imported", platform=platform, check_diff_ids=True)
    assert layout.root().platform == platform


@pytest.mark.parametrize("name", ["buildx-static-site", "docker-classic"])
def test_the_dockerfiles_are_where_the_readmes_say(name: str) -> None:
    asked = BuildRequest(source=EXAMPLES.parent, context=f"examples/{name}", platform=AMD64, source_date_epoch=1)
    asked.check()
    assert f"--context examples/{name} " in (EXAMPLES / name / "README.md").read_text()


@pytest.mark.parametrize(
    ("folder", "platform", "said"),
    [("nowhere", "linux/amd64", "there is no folder nowhere"), (".", "amd64", "write it as linux/amd64")],
)
def test_the_script_says_in_a_line_what_it_cannot_mean(folder: str, platform: str, said: str, tmp_path: Path) -> None:
    script = EXAMPLES / "prebuilt-script" / "make_image.py"
    command = [sys.executable, str(script), folder, platform, "a.tar"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
