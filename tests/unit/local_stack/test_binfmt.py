"""Emulation, with a folder in the place of the kernel's; that foreign programs run by it is the real tier's to show."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.binfmt import emulation
from local_stack.footprint import Footprint, footprint
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import ToolMissing
from soci_pipeline.machine import emulation as kernel_emulation
from soci_pipeline.machine.emulation import can_run
from soci_pipeline.oci.platform import Platform
from tests.support.programs import write_program

NATIVE = Platform.native().normalised()
MACHINES = {"amd64": 62, "arm64": 183}  # EM_X86_64 and EM_AARCH64 of elf.h
FOREIGN = next(Platform("linux", name) for name in MACHINES if name != NATIVE.architecture)
EMULATORS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}
# As Linux shows an entry of its own.
ENTRY = """{state}
interpreter /usr/libexec/qemu
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200{machine:02x}00
mask ffffffffffffff00fffffffffffffffffeffffff
"""


@dataclass
class Kernel:
    folder: Path
    mounts: Path

    def mount(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.mounts.write_text("binfmt_misc /proc/sys/fs/binfmt_misc binfmt_misc rw 0 0\n")
        for name in ("register", "status"):
            (self.folder / name).touch()

    def has(self, name: str, *, state: str = "enabled", flags: str = "F", architecture: str | None = None) -> None:
        machine = MACHINES[architecture or FOREIGN.architecture]
        (self.folder / name).write_text(ENTRY.format(state=state, flags=flags, machine=machine))

    @property
    def registered(self) -> str:
        return (self.folder / "register").read_text()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path / "binfmt_misc", tmp_path / "mounts")
    made.mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(kernel_emulation, "MOUNTS", made.mounts)
    monkeypatch.setattr(kernel_emulation, "FOLDER", made.folder)
    return made


@pytest.fixture
def tools(tmp_path: Path) -> Toolchain:
    for name in EMULATORS.values():
        write_program(tmp_path / "toolchain" / "bin", name, "exit 0")
    return Toolchain(tmp_path / "toolchain")


@pytest.fixture
def traces(tmp_path: Path, kernel: Kernel) -> Iterator[Footprint]:
    with footprint(tmp_path / "stack") as made:
        yield made


def _header(machine: int, *, kind: int = 2, order: str = "<", width: int = 2) -> bytes:
    """The first bytes of a program, as elf(5) has them."""
    return (
        b"\x7fELF" + bytes([width, 1 if order == "<" else 2, 1]) + bytes(9) + struct.pack(f"{order}HH", kind, machine)
    )


def _takes(line: str, header: bytes) -> bool:
    """Whether the kernel hands a program over, by the rule of its document on binfmt_misc."""
    magic, mask = (bytes.fromhex(text.replace("\\x", "")) for text in _with_hex_letters(line).split(":")[4:6])
    return all(byte & bits == wanted for byte, bits, wanted in zip(header, mask, magic, strict=True))


def _with_hex_letters(line: str) -> str:
    return line.replace("\\x7fELF", "\\x7f\\x45\\x4c\\x46")


def test_programs_of_this_machine_need_nothing(kernel: Kernel, traces: Footprint, tmp_path: Path) -> None:
    kernel.mount()
    assert can_run(NATIVE.architecture)
    with emulation(NATIVE, traces, toolchain=Toolchain(tmp_path / "never-filled")):
        assert kernel.registered == ""


def test_a_foreign_platform_is_handed_to_its_emulator_and_nothing_else_is(
    kernel: Kernel, traces: Footprint, tools: Toolchain
) -> None:
    kernel.mount()
    assert not can_run(FOREIGN.architecture)
    with emulation(FOREIGN, traces, toolchain=tools):
        line = kernel.registered
    _, name, how, offset, _, _, interpreter, flags = line.split(":")
    assert (name, how, offset, flags) == (f"soci-pipeline-{FOREIGN.architecture}", "M", "", "F")
    assert interpreter == str(tools.bin / EMULATORS[FOREIGN.architecture])
    machine = MACHINES[FOREIGN.architecture]
    assert _takes(line, _header(machine))
    assert _takes(line, _header(machine, kind=3)), "position-independent programs are of the type DYN"
    assert not _takes(line, _header(MACHINES[NATIVE.architecture]))
    assert not _takes(line, _header(machine, kind=1)), "an object file is no program"
    assert not _takes(line, _header(machine, order=">"))
    assert not _takes(line, _header(machine, width=1))


def test_the_entry_is_unregistered_at_the_end(kernel: Kernel, traces: Footprint, tools: Toolchain) -> None:
    kernel.mount()
    entry = kernel.folder / f"soci-pipeline-{FOREIGN.architecture}"
    with emulation(FOREIGN, traces, toolchain=tools):
        kernel.has(entry.name)
        assert can_run(FOREIGN.architecture)
    assert entry.read_text() == "-1"


def test_what_a_killed_run_registered_is_unregistered_by_its_record(
    kernel: Kernel, tools: Toolchain, tmp_path: Path
) -> None:
    kernel.mount()
    entry = kernel.folder / f"soci-pipeline-{FOREIGN.architecture}"
    with footprint(tmp_path / "other") as traces, emulation(FOREIGN, traces, toolchain=tools):
        record = json.loads((tmp_path / "other" / "footprint.json").read_text())
    assert ["binfmt", str(entry)] in record["records"]
    kernel.has(entry.name)
    (tmp_path / "other" / "footprint.json").write_text(json.dumps(record))
    with footprint(tmp_path / "other"):
        assert entry.read_text() == "-1"


def test_the_kernels_folder_is_mounted_where_it_is_not_and_that_is_written_down(
    kernel: Kernel, tools: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.folder.mkdir()
    write_program(tmp_path / "bin", "mount", f'echo "$@" > {tmp_path}/asked; touch {kernel.folder}/register')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with footprint(tmp_path / "stack") as traces, emulation(FOREIGN, traces, toolchain=tools):
        assert kernel.registered
        records = json.loads((tmp_path / "stack" / "footprint.json").read_text())["records"]
    assert (tmp_path / "asked").read_text().split() == ["-t", "binfmt_misc", "binfmt_misc", str(kernel.folder)]
    assert ["mount", str(kernel.folder)] in records


def test_an_architecture_without_an_emulator_is_named(kernel: Kernel, traces: Footprint, tools: Toolchain) -> None:
    with (
        pytest.raises(ToolMissing, match="there is no emulator for linux/s390x"),
        emulation(Platform("linux", "s390x"), traces, toolchain=tools),
    ):
        pytest.fail("nothing runs it")


def test_an_emulator_that_somebody_else_registered_will_do(kernel: Kernel, traces: Footprint, tools: Toolchain) -> None:
    kernel.mount()
    kernel.has("qemu-of-somebody-else")
    assert can_run(FOREIGN.architecture)
    with emulation(FOREIGN, traces, toolchain=tools):
        assert kernel.registered == ""


@pytest.mark.parametrize(
    "entry",
    [{"state": "disabled"}, {"flags": ""}, {"flags": "OC"}, {"architecture": NATIVE.architecture}],
    ids=["turned off", "looked for inside of the container", "without F", "for other programs"],
)
def test_an_entry_that_does_not_serve_containers_is_no_emulation(kernel: Kernel, entry: dict[str, str]) -> None:
    kernel.mount()
    kernel.has("qemu-of-somebody-else", **entry)
    assert not can_run(FOREIGN.architecture)
