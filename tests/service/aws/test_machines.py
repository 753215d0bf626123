"""A machine's set-up, with programs that only note what they were asked; units and templates say the same."""

import json
import re
import shutil
import stat
from pathlib import Path

import boto3
import pytest

from deployments.machine.secret_environment import environment, main
from soci_pipeline.errors import InvalidInput
from soci_pipeline.machine.programs import run
from tests.support.aws import REGION
from tests.support.cloudformation import template
from tests.support.fake_programs import Programs

REPOSITORY = Path(__file__).resolve().parents[3]
UNITS = (
    "soci-worker@soci-amd64",
    "soci-worker@soci-arm64",
    "soci-worker@soci-control",
    "soci-webhook",
    "soci-prefect-server",
)
# Owner and group are those of a machine that this is not.
_INSTALL = """
import subprocess
words = sys.argv[1:]
for flag in ("-o", "-g"):
    if flag in words:
        at = words.index(flag)
        del words[at : at + 2]
os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]
sys.exit(subprocess.call(["install", *words]))
"""
_VENV = """
folder = os.path.join(sys.argv[3], "bin")
os.makedirs(folder)
path = os.path.join(folder, "python")
with open(path, "w") as file:
    file.write('#!/bin/sh\\necho "venv-python $*" >> "$CALLS"\\n')
os.chmod(path, 0o755)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    fakes = Programs(tmp_path / "programs")
    fakes.folder.mkdir()
    for name in ("dnf", "useradd", "usermod", "systemctl", "chown"):
        fakes.add(name, "exit 0")
    fakes.add("id", "exit 1")
    fakes.add_python("install", _INSTALL)
    fakes.add_python("python3.11", _VENV)
    return fakes


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the set-up needs of the project."""
    home = tmp_path / "soci-pipeline"
    for part in ("deployments/machine", "deployments/systemd"):
        shutil.copytree(REPOSITORY / part, home / part)
    return home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files as its user data leaves them."""
    etc = tmp_path / "root/etc/soci-pipeline"
    etc.mkdir(parents=True)
    (tmp_path / "root/etc/systemd/system").mkdir(parents=True)
    (etc / "machine.env").write_text("PREFECT_API_URL=http://prefect.internal:4200/api\n")
    (etc / "webhook.yaml").write_text("outbox: x\n")
    return tmp_path / "root"


@pytest.mark.parametrize("unit", UNITS)
def test_each_unit_is_installed_with_its_variables_and_started(
    programs: Programs, checkout: Path, root: Path, unit: str
) -> None:
    env = programs.env | {"DESTDIR": str(root)}
    for _ in range(2):
        run([checkout / "deployments/machine/set-up", unit], env=env)
    file = re.sub("@.*", "@", unit) + ".service"
    installed = root / "etc/systemd/system" / file
    assert installed.read_bytes() == (REPOSITORY / "deployments/systemd" / file).read_bytes()
    assert (installed.parent / f"{file}.d/secrets.conf").exists()
    (variables,) = re.findall(r"^EnvironmentFile=(.*)$", installed.read_text(), re.MULTILINE)
    written = root / variables.removeprefix("/")
    assert "PREFECT_API_URL" in written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    calls = programs.calls()
    assert calls[-2:] == [f"systemctl enable {unit}", f"systemctl restart {unit}"]
    with_engine = unit in ("soci-worker@soci-amd64", "soci-worker@soci-arm64")
    assert any(re.match("dnf install .* docker$", call) for call in calls) is with_engine
    assert any(call.startswith("usermod --append --groups docker") for call in calls) is with_engine


def test_what_is_installed_is_pinned_by_hashes(programs: Programs, checkout: Path, root: Path) -> None:
    run([checkout / "deployments/machine/set-up", "soci-webhook"], env=programs.env | {"DESTDIR": str(root)})
    installs = [call for call in programs.calls() if call.startswith("venv-python -m pip install")]
    assert [("--require-hashes" in call, "--no-deps" in call) for call in installs] == [(True, False), (False, True)]


def test_an_unknown_unit_is_refused_before_anything_is_done(programs: Programs, checkout: Path, root: Path) -> None:
    with pytest.raises(Exception, match="there is no unit soci-else"):
        run(
            [checkout / "deployments/machine/set-up", "soci-webhook", "soci-else"],
            env=programs.env | {"DESTDIR": str(root)},
        )
    assert programs.calls() == []


def test_the_templates_start_units_that_there_are_at_the_paths_that_these_name() -> None:
    nested = template("soci-pipeline.yaml")["Resources"].values()
    started = {unit for each in nested for unit in str(each["Properties"]["Parameters"].get("Units", "")).split()}
    assert started == set(UNITS)
    script = template("machines.yaml")["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    text = script["Fn::Base64"]["Fn::Sub"]
    home = "/opt/soci-pipeline"
    assert f"git init --quiet {home}\n" in text
    assert "exec deployments/machine/set-up ${Units}\n" in text
    assert (REPOSITORY / "deployments/machine/set-up").stat().st_mode & 0o111
    for path in (REPOSITORY / "deployments/systemd").iterdir():
        for place in re.findall(r"/opt/[\w./-]+", path.read_text()):
            assert place.startswith(home), path.name
    drop_in = (REPOSITORY / "deployments/systemd/secrets.conf").read_text()
    script_path = re.search(rf"{home}/(deployments/\S+\.py)", drop_in)
    assert script_path
    assert (REPOSITORY / script_path[1]).exists()


def _secret(value: str, name: str = "prefect") -> str:
    return str(boto3.client("secretsmanager", region_name=REGION).create_secret(Name=name, SecretString=value)["ARN"])


def test_a_secret_becomes_a_variable_whole_or_by_its_fields(aws: str) -> None:
    arn = _secret(json.dumps({"username": "prefect", "password": 'p"w$\\'}))
    whole = _secret("pnu_key", "key")
    lines = list(environment(f"PREFECT_API_AUTH_STRING={arn}#username:password\n\nPREFECT_API_KEY={whole}\n"))
    assert lines == ['PREFECT_API_AUTH_STRING="prefect:p\\"w\\$\\\\"', 'PREFECT_API_KEY="pnu_key"']


def test_the_file_is_for_its_owner_alone_and_replaced_at_the_next_start(aws: str, tmp_path: Path) -> None:
    listed, target = tmp_path / "secrets", tmp_path / "secrets.env"
    listed.write_text(f"PREFECT_API_KEY={_secret('first')}\n")
    assert main([str(listed), str(target)]) == 0
    listed.write_text(f"PREFECT_API_KEY={_secret('second', 'other')}\n")
    assert main([str(listed), str(target)]) == 0
    assert target.read_text() == 'PREFECT_API_KEY="second"\n'
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("line", ["PREFECT_API_KEY", "a=arn:x", "A=arn:x#", "A=arn:x#a b"])
def test_a_line_that_names_no_secret_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput, match="not a line of secrets"):
        list(environment(line))


def test_a_secret_without_the_field_is_named_and_not_shown(
    aws: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "secrets"
    listed.write_text(f"PREFECT_API_KEY={_secret('hunter2')}#password\n")
    assert main([str(listed), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "no JSON object with a field password" in said
    assert "hunter2" not in said
    assert not (tmp_path / "out").exists()
