"""What the README promises for a new machine, on one: a bare Debian with the named packages and nothing else."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from local_stack.toolchain import Toolchain
from soci_pipeline.machine.emulation import mounted_filesystems
from soci_pipeline.machine.programs import run
from tests.support.chroot import Chroot, minbase
from tests.support.documentation import documented
from tests.support.systemd import Machine, booted

REPOSITORY = Path(__file__).resolve().parents[2]
# Where the units of deployments/systemd look for the project.
HOME = "/opt/soci-pipeline"
API = "PREFECT_API_URL=http://127.0.0.1:4200/api"
HOOKS = """
outbox: /var/lib/soci-webhook/outbox.sqlite3
prefect: {api_url: "http://127.0.0.1:4200/api"}
listen: {host: 127.0.0.1, port: 4300}
sources: [{kind: github, name: github, secrets: [{env: HOOK}]}]
rules:
  - name: shop
    sources: [github]
    repositories: [acme/shop]
    branches: [main]
    deployment: publish-image/publish
    parameters: {image: registry.example.com/acme/shop, source: "${clone_url}", ref: "${commit}"}
"""
TOUCHES_THE_MACHINE = ("soci", "local_stack", "machine", "git/test_source.py", "test_cli.py", "test_makefile.py")
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
        run(["git", "clone", "--quiet", "--no-local", REPOSITORY, chroot.root / HOME.lstrip("/")])
        yield chroot
    assert not folder.exists()
    assert not [target for target, _ in mounted_filesystems() if target.startswith(str(folder))]


def test_make_install_puts_a_working_command_into_a_fresh_clone(machine: Chroot) -> None:
    machine.run("make install", cwd=HOME)
    listing = machine.run(".venv/bin/soci-pipeline --help", cwd=HOME).stdout
    assert "convert" in listing
    # Nothing but the two ignored folders was made, in the clone and on the machine.
    assert machine.run("git status --porcelain", cwd=HOME).stdout == ""
    assert machine.run("ls -A /root").stdout.split() == [".bashrc", ".profile"]


@pytest.mark.timeout(900)
def test_what_touches_the_machine_passes_in_a_fresh_clone(machine: Chroot) -> None:
    """The unit tests that depend on libc, ctypes, git, processes and the Makefile; the rest is the same everywhere."""
    tests = " ".join(f"tests/unit/{each}" for each in TOUCHES_THE_MACHINE)
    command = f"make development && .venv/bin/python -m pytest -p no:cacheprovider -n auto {tests} 2>&1"
    output = machine.run(command, cwd=HOME, timeout=800).stdout
    assert " passed" in output
    assert machine.run("git status --porcelain", cwd=HOME).stdout == ""


@pytest.fixture(scope="module")
def booted_machine(machine: Chroot) -> Iterator[Machine]:
    """The machine with the project installed and systemd as its process 1."""
    machine.run("make install", cwd=HOME)
    with booted(machine) as system:
        yield system


def start(machine: Machine, unit: str, user: str, variables: dict[str, str]) -> None:
    """Install one unit and its variables as the operations page does a worker's, and start it."""
    file = machine.root / "root" / "variables.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    target = f"/etc/soci-pipeline/{unit.rpartition('-')[2]}.env"
    machine.run(
        f"useradd --system --user-group --home-dir /var/lib/{user} --shell /sbin/nologin {user}\n"
        f"install -D -m 0640 -g {user} /root/variables.env {target}\n"
        f"install -m 0644 {HOME}/deployments/systemd/{unit}.service /etc/systemd/system/\n"
        f"systemctl daemon-reload\n"
        f"systemctl enable --now {unit}"
    )


@pytest.mark.timeout(1800)
def test_the_units_take_a_publication_to_its_tag_under_systemd(booted_machine: Machine) -> None:
    machine = booted_machine
    start(machine, "soci-prefect-server", "soci-prefect", {})
    machine.page("http://127.0.0.1:4200/api/health")
    machine.run(f"export {API}; .venv/bin/soci-pipeline setup && .venv/bin/prefect --no-prompt deploy --all", cwd=HOME)
    (machine.root / "root" / "worker.env").write_text(f"{API}\n")
    machine.run("groupadd docker")
    machine.run(documented("docs/workers.md", "systemctl enable --now soci-worker@soci-amd64").script(), cwd="/root")
    machine.run("systemctl enable --now soci-worker@soci-arm64 soci-worker@soci-control")
    published = machine.run(f"{API} .venv/bin/python -m tests.support.published_here /srv/here", cwd=HOME, timeout=300)
    outcome = json.loads(published.stdout)
    assert outcome["state"] == "COMPLETED", outcome["message"]
    assert outcome["digest"]
    assert machine.run("systemctl show --value --property=NRestarts 'soci-*'").stdout.split() == ["0"] * 4
    # The server writes its pages at the first start of a version, and the installation is read-only for the unit.
    assert "<html" in machine.page("http://127.0.0.1:4200/")
    assert machine.processes_of("soci-pipeline", "soci-prefect")
    machine.run("systemctl stop 'soci-*'", timeout=60)
    assert machine.processes_of("soci-pipeline", "soci-prefect") == []


def test_no_unit_is_exposed_by_more_than_five_points(booted_machine: Machine) -> None:
    units = sorted((REPOSITORY / "deployments" / "systemd").glob("*.service"))
    assert units
    for unit in units:
        # The threshold is in tenths; the exit status says whether it is exceeded.
        path = f"{HOME}/deployments/systemd/{unit.name}"
        booted_machine.run(f"systemd-analyze security --no-pager --offline=true --threshold=50 {path}")


def test_the_receiver_answers_under_systemd(booted_machine: Machine) -> None:
    configuration = booted_machine.root / "etc" / "soci-pipeline" / "webhook.yaml"
    configuration.parent.mkdir(exist_ok=True)
    configuration.write_text(HOOKS)
    start(booted_machine, "soci-webhook", "soci-webhook", {"HOOK": "a secret of more than 32 characters"})
    assert booted_machine.page("http://127.0.0.1:4300/healthz")
    assert booted_machine.run("systemctl is-active soci-webhook").stdout == "active\n"
