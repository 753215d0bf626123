"""What a person sees of a build: its steps, and whatever went wrong."""

import logging

import pytest

from soci_pipeline.builders.step_lines import StepLineLog, StepLines

BUILDX = """
#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#5 [builder 1/2] FROM docker.io/library/python@sha256:1
#5 sha256:0123 5.24MB / 29.1MB 0.3s
#5 CACHED
#6 [stage-1 1/2] COPY a /a
#7 [builder 2/2] RUN make
#6 [stage-1 1/2] COPY a /a
#6 DONE 0.1s
#7 0.512 cc -o program program.c
#7 DONE 42.4s
#8 exporting to oci image format
 1 warning found (use docker --debug to expand):
"""


def test_each_step_has_a_line_and_a_long_one_its_time() -> None:
    lines = StepLines()
    shown = [found for line in BUILDX.strip("\n").splitlines() if (found := lines.shown(line)) is not None]
    assert shown == [
        "  [builder 1/2] FROM docker.io/library/python@sha256:1",
        "  [stage-1 1/2] COPY a /a",
        "  [builder 2/2] RUN make",
        "  [builder 2/2] took 42.4 s",
        " 1 warning found (use docker --debug to expand):",
    ]


@pytest.mark.parametrize("line", ["#7 ERROR: exit code: 1", "#7 WARN: old syntax", "Step 1/2 : FROM scratch", "", "#x"])
def test_errors_and_the_lines_of_other_programs_stay(line: str) -> None:
    assert StepLines().shown(line) == line


def test_details_are_logged_for_verbose_alone(caplog: pytest.LogCaptureFixture) -> None:
    log = StepLineLog(logging.getLogger("soci_pipeline"))
    with caplog.at_level(logging.DEBUG, logger="soci_pipeline"):
        log.info("building %s with %s", "linux/amd64", "buildx")
        log.info("%s", "#7 [1/1] RUN printf 100%s")
        log.info("%s", "#7 0.1 a detail")
        log.warning("not %s", "changed")
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "building linux/amd64 with buildx"),
        ("INFO", "  [1/1] RUN printf 100%s"),
        ("DEBUG", "#7 0.1 a detail"),
        ("WARNING", "not changed"),
    ]
