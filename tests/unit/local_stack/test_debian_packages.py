"""The machine's release and mirror; apt itself is driven by the real tier, and by a stand-in here."""

from pathlib import Path

import pytest

from local_stack.debian_packages import PackageArchive, Release, Suite, debian_architecture
from soci_pipeline.errors import InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.oci.platform import Platform
from tests.support.programs import write_program

BOOKWORM = Release("debian", "bookworm")
# Answers to what `PackageArchive` asks, and writes down what it was asked with.
APT_GET = """
echo "$@" >> "$LOG"
case "$*" in
  *indextargets*) echo "bookworm main https://mirror.example/debian/" ;;
  *" download "*) [ -e "$FAIL_ONCE" ] && rm "$FAIL_ONCE" && { echo "E: 404 Not Found" >&2; exit 100; }
     touch tool_1_amd64.deb ;;
  *) : ;;
esac
"""
APT_CACHE = 'for word; do last=$word; done; [ "$last" = absent ] || echo " $last | 1.0 | https://m trixie/main amd64"'


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "programs"
    write_program(programs, "apt-get", APT_GET)
    write_program(programs, "apt-cache", APT_CACHE)
    write_program(programs, "dpkg-deb", "exit 0")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAIL_ONCE", str(tmp_path / "fail-once"))
    return tmp_path / "log"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\n', BOOKWORM),
        ("ID='ubuntu'\nVERSION_CODENAME='noble'\n", Release("ubuntu", "noble")),
    ],
)
def test_the_release_is_read_from_os_release(tmp_path: Path, log: Path, text: str, expected: Release) -> None:
    (tmp_path / "os-release").write_text(text)
    assert Release.of_this_machine(tmp_path / "os-release") == expected


@pytest.mark.parametrize("text", ["ID=fedora\nVERSION_ID=43\nPRETTY_NAME=Fedora\n", "", "ID=debian\n"])
def test_another_distribution_is_told_what_to_do(tmp_path: Path, log: Path, text: str) -> None:
    (tmp_path / "os-release").write_text(text)
    with pytest.raises(ToolMissing, match="on Debian and Ubuntu, not") as caught:
        Release.of_this_machine(tmp_path / "os-release")
    assert caught.value.advice


def test_a_missing_os_release_is_another_distribution(tmp_path: Path, log: Path) -> None:
    with pytest.raises(ToolMissing):
        Release.of_this_machine(tmp_path / "none")


@pytest.mark.parametrize(
    ("release", "newer"),
    [(BOOKWORM, "trixie"), (Release("debian", "trixie"), "trixie"), (Release("ubuntu", "noble"), "noble")],
)
def test_only_a_release_that_is_too_old_takes_packages_of_the_next(release: Release, newer: str) -> None:
    assert release.codename_of(Suite.NEWER) == newer
    assert release.codename_of(Suite.OWN) == release.codename


def test_packages_of_the_release_in_development_have_lists_of_their_own_and_are_debians(
    tmp_path: Path, log: Path
) -> None:
    suites = (Suite.UNSTABLE,)
    archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=BOOKWORM, suites=suites)
    write_program(tmp_path / "programs", "apt-cache", 'echo " tool | 1.0 | https://m sid/main amd64"')
    (tmp_path / "to").mkdir()
    assert archive.download("tool", Suite.UNSTABLE, tmp_path / "to").name == "tool_1_amd64.deb"
    assert "download tool/sid" in log.read_text()
    sources = (tmp_path / "apt" / "amd64" / "sources.list").read_text()
    assert "https://mirror.example/debian/ sid main" in sources
    assert sources.count("\n") == 1
    with pytest.raises(ToolMissing, match="on Debian, not on ubuntu"):
        PackageArchive(tmp_path / "apt", architecture="amd64", release=Release("ubuntu", "noble"), suites=suites)


def test_a_package_is_asked_for_by_its_suite_from_the_machines_own_mirror(tmp_path: Path, log: Path) -> None:
    archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=BOOKWORM)
    (tmp_path / "to").mkdir()
    assert archive.download("tool", Suite.NEWER, tmp_path / "to").name == "tool_1_amd64.deb"
    assert "download tool/trixie" in log.read_text()
    sources = (tmp_path / "apt" / "amd64" / "sources.list").read_text()
    assert "https://mirror.example/debian/ bookworm main" in sources
    assert "https://mirror.example/debian/ trixie main" in sources


def test_lists_are_fetched_once(tmp_path: Path, log: Path) -> None:
    for number in (1, 2):
        archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=BOOKWORM)
        (tmp_path / str(number)).mkdir()
        archive.download("tool", Suite.NEWER, tmp_path / str(number))
    assert log.read_text().count(" update\n") == 1


def test_a_version_that_the_mirror_has_dropped_is_looked_for_in_fresh_lists(tmp_path: Path, log: Path) -> None:
    (tmp_path / "fail-once").touch()
    archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=BOOKWORM)
    (tmp_path / "to").mkdir()
    archive.download("tool", Suite.NEWER, tmp_path / "to")
    assert log.read_text().count(" update\n") == 2


def test_a_package_that_the_suite_lacks_is_named(tmp_path: Path, log: Path) -> None:
    archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=BOOKWORM)
    with pytest.raises(ToolMissing, match="debian trixie has no package absent"):
        archive.download("absent", Suite.NEWER, tmp_path)


def test_a_failing_archive_is_reported_with_its_last_lines(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(
        tmp_path / "programs",
        "apt-get",
        'case "$*" in *indextargets*) echo "bookworm main m/";; *) echo "E: no route" >&2; exit 100;; esac',
    )
    archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=BOOKWORM)
    with pytest.raises(ToolFailed, match="no route"):
        archive.download("tool", Suite.NEWER, tmp_path)


def test_a_machine_without_a_source_for_its_release_is_told(tmp_path: Path, log: Path) -> None:
    archive = PackageArchive(tmp_path / "apt", architecture="amd64", release=Release("debian", "forky"))
    with pytest.raises(ToolMissing, match="no source for debian forky"):
        archive.download("tool", Suite.OWN, tmp_path)


def test_platforms_without_packages_are_refused() -> None:
    assert debian_architecture(Platform.parse("linux/arm64")) == "arm64"
    with pytest.raises(InvalidInput, match="linux/s390x"):
        debian_architecture(Platform.parse("linux/s390x"))
