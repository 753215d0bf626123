"""The toolchain folder: what is there is not fetched, and what cannot be had is named with its package."""

import os
from pathlib import Path

import pytest

from local_stack import toolchain as module
from local_stack.toolchain import TOOLS, VARIABLE, Toolchain, default_folder
from soci_pipeline.errors import InvalidInput, ToolMissing
from tests.support.programs import write_program

DEBIAN = "ID=debian\nVERSION_CODENAME=bookworm\n"
FEDORA = "ID=fedora\nPRETTY_NAME=Fedora\n"
APT_GET = """
case "$*" in
  *indextargets*) echo "bookworm main https://mirror.example/debian/" ;;
  *" download "*) echo x >> "$DOWNLOADS"; touch oras_1_amd64.deb ;;
esac
"""
APT_CACHE = 'for word; do last=$word; done; echo " $last | 1.0 | https://m trixie/main amd64"'
DPKG_DEB = 'mkdir -p "$3/usr/bin"; printf "#!/bin/sh\\necho fetched" > "$3/usr/bin/oras"; chmod 755 "$3/usr/bin/oras"'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    write_program(folder, "apt-get", APT_GET)
    write_program(folder, "apt-cache", APT_CACHE)
    write_program(folder, "dpkg-deb", DPKG_DEB)
    write_program(folder, "ldd", "echo 'not a dynamic executable' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("DOWNLOADS", str(tmp_path / "downloads"))
    return folder


def _toolchain(folder: Path, os_release: str) -> Toolchain:
    path = folder.parent / "os-release"
    path.write_text(os_release)
    return Toolchain(folder, os_release=path)


def test_a_fetched_tool_comes_first_on_the_path(tmp_path: Path, programs: Path) -> None:
    tools = _toolchain(tmp_path / "toolchain", DEBIAN)
    env = tools.ensure(["oras"])
    assert env["PATH"].split(os.pathsep)[0] == str(tmp_path / "toolchain" / "bin")
    assert tools.program("oras").read_text().endswith("echo fetched")


def test_the_second_time_nothing_is_fetched(tmp_path: Path, programs: Path) -> None:
    for _ in range(2):
        _toolchain(tmp_path / "toolchain", DEBIAN).ensure(["oras"])
    assert (tmp_path / "downloads").read_text() == "x\n"


def test_a_folder_that_was_moved_fetches_nothing_again(tmp_path: Path, programs: Path) -> None:
    _toolchain(tmp_path / "old", DEBIAN).ensure(["oras"])
    (tmp_path / "old").rename(tmp_path / "new")
    tools = _toolchain(tmp_path / "new", DEBIAN)
    tools.ensure(["oras"])
    assert tools.program("oras").resolve().is_relative_to(tmp_path / "new")
    assert (tmp_path / "downloads").read_text() == "x\n"


COSIGN = 'mkdir -p "$3/usr/bin"; echo "of $2" > "$3/usr/bin/cosign"; chmod 755 "$3/usr/bin/cosign"'


def test_a_second_version_of_a_tool_has_a_folder_of_its_own(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "apt-get", APT_GET.replace("oras_1", "cosign_1"))
    write_program(
        programs, "apt-cache", 'echo " cosign | 1.0 | https://m trixie/main"; echo " cosign | 3 | m sid/main"'
    )
    write_program(programs, "dpkg-deb", COSIGN)
    tools = _toolchain(tmp_path / "toolchain", DEBIAN)
    tools.ensure(["cosign", "cosign-3", "cosign-3"])
    first, second = tools.folder_of("cosign") / "cosign", tools.folder_of("cosign-3") / "cosign"
    assert tools.program("cosign") == first
    assert [path.resolve().parents[2].name.split("-")[0] for path in (first, second)] == ["trixie", "sid"]


def test_a_tool_on_the_path_is_not_taken_for_a_second_version(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "cosign", "echo installed")
    with pytest.raises(ToolMissing, match="cosign-3 is not installed"):
        _toolchain(tmp_path / "toolchain", FEDORA).ensure(["cosign-3"])


def test_elsewhere_than_on_debian_an_installed_tool_will_do(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "oras", "echo installed")
    tools = _toolchain(tmp_path / "toolchain", FEDORA)
    tools.ensure(["oras"])
    assert tools.program("oras") == programs / "oras"


def test_elsewhere_than_on_debian_a_missing_tool_is_named(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(
        ToolMissing, match="cosign is not installed: packages can only be downloaded on Debian and Ubuntu"
    ):
        _toolchain(tmp_path / "toolchain", FEDORA).ensure(["cosign"])


POSTGRES = """
bin="$3/usr/lib/postgresql/15/bin"; mkdir -p "$bin"
for name in postgres initdb; do echo "#!/bin/sh" > "$bin/$name"; chmod 755 "$bin/$name"; done
"""


def test_a_package_with_its_version_in_its_name_is_that_of_the_release(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "dpkg-deb", POSTGRES)
    write_program(programs, "apt-cache", 'for word; do last=$word; done; echo " $last | 15 | https://m bookworm/main"')
    tools = _toolchain(tmp_path / "toolchain", DEBIAN)
    tools.ensure(["postgres"])
    found = tools.program("initdb").resolve()
    assert found.is_relative_to(tmp_path / "toolchain" / "packages")
    assert "postgresql-15" in str(found)
    assert found.parent == tools.program("postgres").resolve().parent, "initdb looks for postgres beside itself"


def test_a_release_whose_package_is_not_known_is_named(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(ToolMissing, match="the package of sid that provides postgres is unknown"):
        _toolchain(tmp_path / "toolchain", "ID=debian\nVERSION_CODENAME=sid\n").ensure(["postgres"])


def test_a_package_without_the_program_is_named(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "dpkg-deb", 'mkdir -p "$3"')
    with pytest.raises(ToolMissing, match="has 0 files usr/bin/oras instead of one"):
        _toolchain(tmp_path / "toolchain", DEBIAN).ensure(["oras"])


# A program that needs a library until it lies in the folder that the environment names.
LDD = 'ls "$LD_LIBRARY_PATH"/{library}* >/dev/null 2>&1 || printf "\\t{library} => not found\\n"'
WITH_LIBRARY = """
mkdir -p "$3/usr/bin" "$3/usr/lib/x86_64-linux-gnu"
printf "#!/bin/sh\\n" > "$3/usr/bin/oras"; chmod 755 "$3/usr/bin/oras"
touch "$3/usr/lib/x86_64-linux-gnu/{library}" "$3/usr/lib/x86_64-linux-gnu/{library}.0.1"
"""
ANY_SUITE = (
    'for word; do last=$word; done; echo " $last | 1.0 | https://m trixie/main"; echo " $last | 1.0 | bookworm/"'
)


@pytest.mark.parametrize(("library", "package"), [("libseccomp.so.2", "libseccomp2"), ("libicuuc.so.72", "libicu72")])
def test_a_library_that_the_machine_lacks_comes_from_its_own_release(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, library: str, package: str
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    write_program(programs, "ldd", LDD.format(library=library))
    write_program(programs, "dpkg-deb", WITH_LIBRARY.format(library=library))
    write_program(programs, "apt-cache", ANY_SUITE)
    tools = _toolchain(tmp_path / "toolchain", DEBIAN)
    env = tools.ensure(["oras"])
    folder = tmp_path / "toolchain" / "lib"
    assert env["LD_LIBRARY_PATH"] == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == [library, f"{library}.0.1"]
    assert f"bookworm-{package}-" in str((folder / library).resolve())


def test_a_library_that_nothing_is_known_to_bring_is_named(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "ldd", LDD.format(library="libodd.so.1"))
    with pytest.raises(ToolMissing, match=r"oras requires the library libodd\.so\.1, which is not on this machine"):
        _toolchain(tmp_path / "toolchain", DEBIAN).ensure(["oras"])


def test_a_program_that_was_neither_brought_nor_found_is_named(tmp_path: Path, programs: Path) -> None:
    with pytest.raises(ToolMissing, match="'dockerd' is neither in"):
        Toolchain(tmp_path / "toolchain").program("dockerd")


def test_dockers_configuration_here_has_the_plugin_and_no_credentials(tmp_path: Path) -> None:
    write_program(tmp_path / "toolchain" / "bin", "docker-buildx", "exit 0")
    folder = Toolchain(tmp_path / "toolchain").docker_configuration()
    assert [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()] == [
        "cli-plugins/docker-buildx"
    ]
    assert (folder / "cli-plugins" / "docker-buildx").read_text().endswith("exit 0\n")


def test_an_unknown_tool_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no tool named 'podman'") as caught:
        Toolchain(tmp_path).ensure(["podman"])
    assert "buildx" in str(caught.value.advice)


def test_the_folder_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert default_folder() == tmp_path


def test_in_a_work_tree_the_folder_lies_in_it() -> None:
    assert default_folder() == Path(module.__file__).parents[1] / ".toolchain"


def test_no_two_tools_bring_a_program_of_the_same_name() -> None:
    names = [Path(file).name for tool in TOOLS.values() for file in tool.files]
    assert len(names) == len(set(names))
