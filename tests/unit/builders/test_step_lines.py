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


@pytest.mark.parametrize("line", ["#7 WARN: old syntax", "Step 1/2 : FROM scratch", "", "#x", "127.0.0.1:5000"])
def test_warnings_and_the_lines_of_other_programs_stay(line: str) -> None:
    assert StepLines().shown(line) == line


BUILDX_FAILED = """
#7 [2/2] RUN make
#8 [other 2/2] RUN true
#7 0.512 cc: no such file
#7 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 1
#8 CANCELED
------
 > [2/2] RUN make:
0.512 cc: no such file
------
Dockerfile:2
--------------------
   2 | >>> RUN make
--------------------
ERROR: failed to build: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 1
"""
DOCKERFILE_INVALID = """
#1 DONE 0.0s
Dockerfile:1
--------------------
   1 | >>> FROMM scratch
--------------------
ERROR: failed to build: failed to solve: dockerfile parse error on line 1: unknown instruction: FROMM
"""
CLASSIC_FAILED = """
Step 1/2 : FROM scratch
 ---> 0123
Step 2/2 : RUN make
 ---> Running in 4567
cc: no such file
"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (BUILDX_FAILED, ["  [2/2] RUN make", "  [other 2/2] RUN true"]),
        (DOCKERFILE_INVALID, []),
        (CLASSIC_FAILED, ["Step 1/2 : FROM scratch", "Step 2/2 : RUN make"]),
    ],
    ids=["a step fails", "invalid Dockerfile", "classic builder"],
)
def test_what_the_error_of_a_failed_build_repeats_is_not_shown_before(output: str, expected: list[str]) -> None:
    lines = StepLines()
    shown = [found for line in output.strip("\n").splitlines() if (found := lines.shown(line)) is not None]
    assert shown == expected


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
