"""How far a build is, read in what buildx and the classic engine print."""

import pytest

from soci_pipeline.builders.steps import BuildSteps

BUILDX = """
#0 building with "default" instance using docker driver
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 214B done
#1 DONE 0.0s
#5 [builder 1/2] FROM docker.io/library/python@sha256:1
#5 CACHED
#6 [stage-1 1/3] COPY a /a
#6 DONE 0.1s
#7 [builder 2/2] RUN make
#7 0.512 #6 DONE is what this step prints
#7 DONE 4.2s
#8 [stage-1 2/3] RUN echo [stage-1 9/9]
#8 DONE 0.3s
#9 [stage-1 3/3] COPY --from=builder /out /out
#9 DONE 0.1s
#10 exporting to oci image format
#10 DONE 0.4s
"""


def read(text: str) -> list[tuple[int, int]]:
    steps = BuildSteps()
    return [found for line in text.strip().splitlines() if (found := steps.read(line)) is not None]


def test_the_steps_of_all_stages_count_once_each() -> None:
    found = read(BUILDX)
    assert found[0] == (0, 2)
    assert found[-1] == (5, 5)
    assert [done for done, _ in found] == sorted(done for done, _ in found)


def test_work_that_is_no_step_of_the_dockerfile_does_not_count() -> None:
    assert read("#1 [internal] load .dockerignore\n#1 DONE 0.0s\n#10 exporting layers\n#10 DONE 1.0s") == []


def test_a_stage_without_a_name_has_steps_too() -> None:
    assert read("#4 [1/2] FROM scratch\n#4 DONE 0.0s") == [(0, 2), (1, 2)]


def test_a_step_for_a_named_platform_is_a_step() -> None:
    assert read("#4 [linux/arm64 build 1/2] FROM scratch\n#4 CACHED") == [(0, 2), (1, 2)]


def test_the_classic_engine_says_which_step_begins() -> None:
    assert read("Step 1/3 : FROM scratch\nStep 3/3 : COPY a /a") == [(0, 3), (2, 3)]


@pytest.mark.parametrize("line", ["", "#", "#x [1/2] RUN", "Step a/b :", "#7 ERROR: exit code: 1", "#7 [1/0"])
def test_other_lines_say_nothing(line: str) -> None:
    assert BuildSteps().read(line) is None
