"""Control groups and mounts, on a machine that is described by files of the test; the engine's are the real tier's."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack import cgroups
from local_stack.cgroups import cgroup_mounts, in_own_mounts, is_chroot, remove_cgroups, unmount
from soci_pipeline.machine import emulation
from soci_pipeline.machine.programs import run
from tests.support.fake_programs import Programs

HEADER = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
WITHOUT_OPTIONS = 'while [ "$1" != sh ]; do shift; done; exec "$@"'


@dataclass
class Machine:
    """What the kernel says of itself, and programs that only note what they would change of it."""

    folder: Path
    programs: Programs

    @property
    def groups(self) -> Path:
        return self.folder / "cgroup"

    def mounted(self, *lines: str) -> None:
        (self.folder / "mounts").write_text("".join(f"{line} rw 0 0\n" for line in lines))

    def controllers(self, *rows: str) -> None:
        (self.folder / "controllers").write_text(HEADER + "".join(f"{row}\n" for row in rows))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    (tmp_path / "programs").mkdir()
    made = Machine(tmp_path, Programs(tmp_path / "programs"))
    made.mounted("/dev/sda1 / ext4")
    made.controllers()
    made.programs.add("unshare", WITHOUT_OPTIONS)
    made.programs.add("mount", "")
    made.programs.add("chroot", 'shift; exec "$@"')
    for name, value in made.programs.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(emulation, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(cgroups, "_CONTROLLERS", tmp_path / "controllers")
    monkeypatch.setattr(cgroups, "_ROOT", made.groups)
    return made


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_hierarchies_that_are_there_are_left_as_they_are(machine: Machine, kind: str) -> None:
    machine.mounted("/dev/sda1 / ext4", f"none /sys/fs/cgroup {kind}")
    assert cgroup_mounts() == []


def test_a_bare_root_gets_the_unified_hierarchy_and_sysfs_to_put_it_in(machine: Machine) -> None:
    machine.controllers("cpu\t0\t1\t1", "memory\t0\t1\t1")
    assert cgroup_mounts() == ["mount -t sysfs sysfs /sys", f"mount -t cgroup2 cgroup2 {machine.groups}"]
    machine.groups.mkdir()
    assert cgroup_mounts() == [f"mount -t cgroup2 cgroup2 {machine.groups}"]


def test_a_machine_with_the_old_hierarchies_gets_each_of_its_controllers(machine: Machine) -> None:
    machine.groups.mkdir()
    machine.controllers("cpu\t3\t1\t1", "memory\t4\t1\t0", "pids\t5\t1\t1")
    for command in cgroup_mounts():
        run(["sh", "-c", command])
    assert machine.programs.calls() == [
        f"mount -t tmpfs -o mode=0755 tmpfs {machine.groups}",
        f"mount -t cgroup -o cpu cgroup {machine.groups}/cpu",
        f"mount -t cgroup -o pids cgroup {machine.groups}/pids",
    ]
    assert sorted(path.name for path in machine.groups.iterdir()) == ["cpu", "pids"]


@pytest.mark.parametrize("is_mounted", [True, False])
def test_groups_are_removed_with_those_in_them_from_every_hierarchy(machine: Machine, is_mounted: bool) -> None:
    if is_mounted:
        machine.mounted("/dev/sda1 / ext4", f"none {machine.groups} cgroup2")
    for name in ("cpu/mine/inner/innermost", "pids/mine", "pids/of-somebody-else"):
        (machine.groups / name).mkdir(parents=True)
    remove_cgroups(Path("mine"))
    assert [path.name for path in machine.groups.rglob("*") if "mine" in path.parts] == []
    assert (machine.groups / "pids" / "of-somebody-else").is_dir()
    assert bool(machine.programs.calls()) is not is_mounted


def test_a_group_in_which_something_still_runs_is_left_and_named(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.mounted("/dev/sda1 / ext4", f"none {machine.groups} cgroup2")
    machine.programs.add("seq", "echo once")
    (machine.groups / "mine").mkdir(parents=True)
    (machine.groups / "mine" / "process").touch()
    remove_cgroups(Path("mine"))
    assert (machine.groups / "mine").is_dir()
    assert "cannot remove the control group mine" in caplog.text


def test_mounts_of_a_program_of_ours_do_not_reach_others(machine: Machine) -> None:
    said = run(in_own_mounts(["echo first", "echo second"], root=machine.folder / "none", options=["--pid"]))
    assert said.stdout.split() == ["first", "second"]
    assert machine.programs.calls() == [
        "unshare --mount --propagation unchanged --pid sh -c"
        " mount --make-rslave / 2>/dev/null; echo first && echo second",
        "mount --make-rslave /",
    ]


def test_in_a_chroot_the_root_is_made_a_mount_point_first(machine: Machine) -> None:
    machine.mounted("proc /proc proc")
    root = machine.folder / "the root"
    root.mkdir()
    machine.programs.add("mount", 'for last; do :; done; [ -d "$last" ]')
    assert is_chroot()
    assert run(in_own_mounts(["echo inside"], root=root)).stdout == "inside\n"
    assert machine.programs.calls()[1:] == [
        f"mount --rbind / {root}",
        f"mount --make-rslave {root}",
        f"chroot {root} sh -c echo inside",
    ]


def test_what_was_mounted_twice_is_taken_away_twice(machine: Machine) -> None:
    machine.mounted("/dev/sda1 / ext4", "a /there ext4", "b /there ext4")
    machine.programs.add("umount", f"sed -i '$d' {machine.folder / 'mounts'}")
    unmount(Path("/there"))
    unmount(Path("/elsewhere"))
    assert machine.programs.calls() == ["umount --lazy /there"] * 2
