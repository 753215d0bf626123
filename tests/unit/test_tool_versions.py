import pytest

from soci_pipeline.tool_versions import ToolTooOld, find_version, require_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", (0, 13, 1)),
        ("github.com/docker/buildx v0.29.1 a32761aeb3debd39be1eca514af3693af0db334b", (0, 29, 1)),
        ("ctr github.com/containerd/containerd 1.7.24~ds1", (1, 7, 24)),
        ("soci version v0.15.0 1234567", (0, 15, 0)),
        ("soci version 0.4.1-5+b3 0.4.1-5+b3", (0, 4, 1)),
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("29.0", (29, 0, 0)),
        ("v2x", None),
        ("", None),
    ],
)
def test_versions_are_found_in_what_tools_print(text: str, version: tuple[int, int, int] | None) -> None:
    assert find_version(text) == version


def test_an_old_tool_is_refused_with_both_versions() -> None:
    with pytest.raises(ToolTooOld, match=r"soci is 0\.4\.1, but 0\.14\.0 is required for v2") as caught:
        require_version("soci", "0.4.1", (0, 14, 0), why="for v2", package="soci-snapshotter")
    assert "soci-snapshotter" in str(caught.value)


def test_a_tool_that_does_not_tell_its_version_is_refused() -> None:
    with pytest.raises(ToolTooOld, match="does not print a version"):
        require_version("soci", "unknown", (0, 4, 0), why="", package="soci-snapshotter")
