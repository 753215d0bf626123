"""What the README promises for a new machine, on one: a bare Debian with the named packages and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from soci_pipeline.local.cgroups import mounted_filesystems
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.process import run
from tests.support.chroot import Chroot, minbase

pytestmark = pytest.mark.real

REPOSITORY = Path(__file__).resolve().parents[2]
# As the README and CONTRIBUTING name them.
PREREQUISITES = ("git", "make", "python3", "python3-venv", "ca-certificates")


@pytest.fixture(scope="module")
def machine(
    toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Iterator[Chroot]:
    """The bare machine with a clone of what is committed."""
    folder = tmp_path_factory.mktemp("machine") / "debian"
    with ExitStack() as stack:
        with or_skip():
            chroot = stack.enter_context(minbase(folder, toolchain, PREREQUISITES))
        run(["git", "clone", "--quiet", "--no-local", REPOSITORY, chroot.root / "project"])
        yield chroot
    assert not folder.exists()
    assert not [target for target, _ in mounted_filesystems() if target.startswith(str(folder))]


def test_make_install_puts_a_working_command_into_a_fresh_clone(machine: Chroot) -> None:
    machine.run("make install", cwd="/project")
    listing = machine.run(".venv/bin/soci-pipeline --help", cwd="/project").stdout
    assert "convert" in listing
    # Nothing but the two ignored folders was made, in the clone and on the machine.
    assert machine.run("git status --porcelain", cwd="/project").stdout == ""
    assert machine.run("ls -A /root").stdout.split() == [".bashrc", ".profile"]


@pytest.mark.timeout(1800)
def test_the_unit_tests_pass_in_a_fresh_clone(machine: Chroot) -> None:
    output = machine.run("make test-unit 2>&1", cwd="/project", timeout=1700).stdout
    assert " passed" in output
    assert machine.run("git status --porcelain", cwd="/project").stdout == ""
