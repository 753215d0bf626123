"""Which platforms the engine of a machine can build, as docker says it."""

from pathlib import Path

import pytest

from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.builders.platforms import buildable
from soci_pipeline.errors import EngineUnavailable
from soci_pipeline.oci.platform import Platform
from tests.support.fake_programs import Programs

_INSPECT = """cat <<'END'
Name:   farm
Driver: remote

Nodes:
Name:      farm0
Platforms: linux/amd64*, linux/amd64/v2, linux/386
Name:      farm1
Platforms: linux/arm64*, linux/unheard-of
END"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def test_a_named_builder_builds_what_all_its_nodes_list(programs: Programs) -> None:
    programs.add("docker", _INSPECT)
    found = buildable(BuilderName.BUILDX, buildx_builder="farm", env=programs.env)
    names = ("linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64")
    assert found == frozenset({Platform.parse(name) for name in names})
    assert programs.calls() == ["docker buildx inspect farm"]


def test_a_named_builder_that_does_not_answer_is_named(programs: Programs) -> None:
    programs.add("docker", "echo no such builder >&2; exit 1")
    with pytest.raises(EngineUnavailable, match="the buildx builder 'farm' does not answer"):
        buildable(BuilderName.AUTO, buildx_builder="farm", env=programs.env)


def test_without_an_engine_nothing_can_be_built_but_what_is_prebuilt(programs: Programs) -> None:
    env = programs.env | {"DOCKER_HOST": f"unix://{programs.folder}/nobody.sock"}
    with pytest.raises(EngineUnavailable, match=r"engine answers at unix://.*/nobody\.sock \(from DOCKER_HOST\)"):
        buildable(BuilderName.AUTO, env=env)
    assert buildable(BuilderName.PREBUILT, env=env) is None
