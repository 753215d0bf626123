"""Which architectures this machine runs, with a folder in the place of the kernel's."""

from pathlib import Path

import pytest

from soci_pipeline.machine import emulation
from soci_pipeline.oci.platform import Platform

NATIVE = Platform.native().normalised().architecture
FOREIGN = next(name for name in emulation.MACHINES if name != NATIVE)
ENTRY = """enabled
interpreter /usr/libexec/qemu
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200{machine}00
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of registered emulators, which is mounted."""
    folder = tmp_path / "binfmt_misc"
    folder.mkdir()
    for name in ("register", "status"):
        (folder / name).touch()
    (tmp_path / "mounts").write_text("binfmt_misc /proc/sys/fs/binfmt_misc binfmt_misc rw 0 0\n")
    monkeypatch.setattr(emulation, "FOLDER", folder)
    monkeypatch.setattr(emulation, "MOUNTS", tmp_path / "mounts")
    return folder


def test_a_foreign_architecture_runs_once_an_emulator_for_it_is_registered(kernel: Path) -> None:
    assert emulation.can_run(NATIVE)
    assert not emulation.can_run(FOREIGN)
    (kernel / "qemu-foreign").write_text(ENTRY.format(flags="F", machine=emulation.MACHINES[FOREIGN]))
    assert emulation.can_run(FOREIGN)
    assert not emulation.can_run("s390x")


@pytest.mark.parametrize(("flags", "architecture"), [("OC", FOREIGN), ("F", NATIVE)])
def test_an_emulator_that_containers_do_not_find_or_for_other_programs_does_not_count(
    kernel: Path, flags: str, architecture: str
) -> None:
    (kernel / "qemu").write_text(ENTRY.format(flags=flags, machine=emulation.MACHINES[architecture]))
    assert not emulation.can_run(FOREIGN)


def test_without_the_kernels_folder_nothing_foreign_runs(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kernel / "qemu").write_text(ENTRY.format(flags="F", machine=emulation.MACHINES[FOREIGN]))
    (tmp_path / "mounts").write_text("/dev/sda1 / ext4 rw 0 0\n")
    assert not emulation.can_run(FOREIGN)
