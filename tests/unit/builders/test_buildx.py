import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.builders.buildx import BuildxBuilder, build_command, csv_fields, temporary_builder
from soci_pipeline.builders.errors import BuilderUnavailable, DockerfileMissing
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import BuildFailed, EngineUnavailable, InvalidInput, ToolMissing
from soci_pipeline.machine.working_folder import BUILDER_RECORD, PREFIX
from soci_pipeline.tool_versions import ToolTooOld
from tests.support.fake_programs import Programs
from tests.support.images import ARM64
from tests.support.processes import is_alive

CONTAINERD = '{"ServerVersion":"26.1.5","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}'
CLASSIC = '{"ServerVersion":"26.1.5","DriverStatus":[["Backing Filesystem","extfs"]]}'
OLD = '{"ServerVersion":"25.0.5","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}'
DOWN = '{"ServerErrors":["Cannot connect to the Docker daemon"]}'


def docker(info: str = CONTAINERD, *, version: str = "v0.13.1", build: str = "exit 0", create: str = "exit 0") -> str:
    return f"""
case "$*" in
  "buildx version") echo "github.com/docker/buildx {version} abc" ;;
  info*) echo '{info}' ;;
  "buildx inspect missing") echo 'ERROR: no builder "missing" found' >&2; exit 1 ;;
  "buildx create"*) {create} ;;
  "buildx build"*) echo "epoch=$SOURCE_DATE_EPOCH"; {build} ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    tree.mkdir()
    (tree / "Dockerfile").write_text("FROM scratch\n")
    return tree


def request(source: Path, **fields: Any) -> BuildRequest:
    return BuildRequest(**{"source": source, "platform": ARM64, "source_date_epoch": 1700000000, **fields})


def value_after(argv: list[str], flag: str) -> list[str]:
    return [argv[number + 1] for number, word in enumerate(argv) if word == flag]


def test_the_command_asks_for_a_reproducible_oci_archive_without_attestations(source: Path) -> None:
    argv = build_command(request(source), Path("/out/image.tar"), builder="default")
    assert argv[:5] == ["docker", "buildx", "build", "--builder", "default"]
    assert value_after(argv, "--output") == ["type=oci,dest=/out/image.tar,rewrite-timestamp=true"]
    assert value_after(argv, "--platform") == ["linux/arm64"]
    assert value_after(argv, "--build-arg") == ["SOURCE_DATE_EPOCH=1700000000"]
    assert value_after(argv, "--provenance") == value_after(argv, "--sbom") == ["false"]
    assert "--pull" not in argv
    assert argv[-1] == str(source)


def test_the_command_carries_everything_that_was_asked_for(source: Path) -> None:
    asked = request(
        source,
        target="web",
        build_args={"B": "2", "A": "with space"},
        secrets={"token": Path("/run/a,b")},
        cache_from=("type=registry,ref=r/c",),
        cache_to=("type=inline",),
        network="host",
        attestations=True,
        pull=True,
    )
    argv = build_command(asked, Path("/out/image.tar"), builder=None)
    assert value_after(argv, "--target") == ["web"]
    assert value_after(argv, "--build-arg") == ["A=with space", "B=2", "SOURCE_DATE_EPOCH=1700000000"]
    assert value_after(argv, "--secret") == ['id=token,"src=/run/a,b"']
    assert value_after(argv, "--cache-from") == ["type=registry,ref=r/c"]
    assert value_after(argv, "--cache-to") == ["type=inline"]
    assert value_after(argv, "--network") == ["host"]
    assert value_after(argv, "--provenance") == ["mode=max"]
    assert value_after(argv, "--sbom") == ["true"]
    assert "--pull" in argv


def test_fields_with_commas_and_quotes_are_one_csv_record() -> None:
    assert csv_fields({"dest": 'a,"b'}) == '"dest=a,""b"'


def test_the_engines_own_builder_is_used_with_the_containerd_store(programs: Programs, source: Path) -> None:
    programs.add("docker", docker())
    archive = BuildxBuilder(programs.env).build(request(source), source.parent / "out")
    assert archive == source.parent / "out" / "image.tar"
    built = [call for call in programs.calls() if call.startswith("docker buildx build")]
    assert len(built) == 1
    assert "--builder default" in built[0]


@pytest.mark.parametrize("info", [CLASSIC, OLD])
def test_elsewhere_a_builder_is_made_for_the_run_and_removed(programs: Programs, source: Path, info: str) -> None:
    programs.add("docker", docker(info))
    out = source.parent / "out"
    BuildxBuilder(programs.env).build(request(source, network="host"), out)
    created = next(call for call in programs.calls() if call.startswith("docker buildx create"))
    name = created.split()[4]
    assert name.startswith(PREFIX)
    assert "--driver docker-container --driver-opt network=host" in created
    assert any(f"--builder {name}" in call for call in programs.calls())
    assert programs.calls()[-1] == f"docker buildx rm --force {name}"
    assert not (out / BUILDER_RECORD).exists()


def test_the_builder_is_removed_when_the_build_fails(programs: Programs, source: Path) -> None:
    programs.add("docker", docker(CLASSIC, build="echo 'no such file' >&2; exit 1"))
    with pytest.raises(BuildFailed, match="no such file"):
        BuildxBuilder(programs.env).build(request(source), source.parent / "out")
    assert programs.calls()[-1].startswith("docker buildx rm --force soci-pipeline-")


def test_a_builder_that_cannot_be_started_is_removed_and_named(programs: Programs, source: Path) -> None:
    programs.add("docker", docker(CLASSIC, create="echo 'no such host' >&2; exit 1"))
    with pytest.raises(BuilderUnavailable, match="no such host"):
        BuildxBuilder(programs.env).build(request(source), source.parent / "out")
    assert programs.calls()[-1].startswith("docker buildx rm --force")


def test_the_builder_is_noted_for_the_reaper_before_it_is_made(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", f'test -s "{tmp_path}/{BUILDER_RECORD}" || exit 9')
    with temporary_builder(tmp_path, env=programs.env) as name:
        assert (tmp_path / BUILDER_RECORD).read_text().strip() == name


def test_a_named_builder_is_used_as_it_is(programs: Programs, source: Path) -> None:
    programs.add("docker", docker(DOWN))
    BuildxBuilder(programs.env).build(request(source, buildx_builder="farm"), source.parent / "out")
    assert any("buildx build --builder farm" in call for call in programs.calls())
    assert not any("create" in call for call in programs.calls())


def test_a_named_builder_that_does_not_exist_is_a_clear_error(programs: Programs, source: Path) -> None:
    programs.add("docker", docker())
    with pytest.raises(InvalidInput, match="the buildx builder 'missing' does not exist"):
        BuildxBuilder(programs.env).check(request(source, buildx_builder="missing"))


def test_an_engine_that_does_not_run_is_named(programs: Programs, source: Path) -> None:
    programs.add("docker", docker(DOWN))
    with pytest.raises(EngineUnavailable, match="Cannot connect to the Docker daemon"):
        BuildxBuilder(programs.env).check(request(source))


def test_an_old_buildx_is_refused(programs: Programs, source: Path) -> None:
    programs.add("docker", docker(version="v0.9.1"))
    with pytest.raises(ToolTooOld, match=r"docker buildx is 0\.9\.1, but 0\.10\.0 is required"):
        BuildxBuilder(programs.env).check(request(source))


def test_a_docker_without_buildx_is_told_what_to_install(programs: Programs, source: Path) -> None:
    programs.add("docker", "echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1")
    with pytest.raises(ToolMissing) as caught:
        BuildxBuilder(programs.env).check(request(source))
    assert "docker-buildx" in str(caught.value)


def test_a_missing_dockerfile_is_found_before_docker_is_asked(programs: Programs, source: Path) -> None:
    programs.add("docker", docker())
    with pytest.raises(DockerfileMissing):
        BuildxBuilder(programs.env).check(request(source, dockerfile="nothing"))
    assert programs.calls() == []


def test_no_secret_value_reaches_a_command_line(programs: Programs, source: Path) -> None:
    secret = source.parent / "token"
    secret.write_text("s3cr3t-value")
    programs.add("docker", docker())
    BuildxBuilder(programs.env).build(request(source, secrets={"token": secret}), source.parent / "out")
    assert not any("s3cr3t-value" in call for call in programs.calls())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_ends_the_build_and_removes_its_builder(
    programs: Programs, source: Path, number: signal.Signals
) -> None:
    mark = source.parent / "building"
    programs.add("docker", docker(CLASSIC, build=f"touch '{mark}'; sleep 300 & echo $! > '{mark}.pid'; wait"))
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from soci_pipeline.builders.buildx import BuildxBuilder
        from soci_pipeline.builders.request import BuildRequest
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        request = BuildRequest(source=Path({str(source)!r}), platform="linux/arm64", source_date_epoch=1)
        BuildxBuilder(dict(os.environ)).build(request, Path({str(source.parent / "out")!r}))
    """)
    child = subprocess.Popen([sys.executable, "-c", script], env=programs.env, stderr=subprocess.DEVNULL)
    try:
        pid_file = Path(f"{mark}.pid")
        wait_for(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
        child.send_signal(number)
        child.wait(20)
        pid = int(pid_file.read_text())
        wait_for(lambda: not is_alive(pid))
    finally:
        child.kill()
        child.wait()
    assert programs.calls()[-1].startswith("docker buildx rm --force soci-pipeline-")


def wait_for(condition: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


EXPORT_FAILED = """
echo '#12 exporting cache to registry' >&2
echo '#12 ERROR: error writing layer blob: connection refused' >&2
echo '------' >&2
echo ' > exporting cache to registry:' >&2
echo '------' >&2
"""
IMPORT_FAILED = """
echo '#4 ERROR: failed to configure registry cache importer: not found' >&2
echo ' > importing cache manifest from registry.example.com/app:cache:' >&2
"""


def test_a_cache_that_was_not_stored_is_a_warning_with_its_cause(
    programs: Programs, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs.add("docker", docker(build=EXPORT_FAILED))
    asked = request(source, cache_to=("type=registry,ref=registry.example.com/app:cache,ignore-error=true",))
    assert BuildxBuilder(programs.env).build(asked, source.parent / "out").name == "image.tar"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    cause = "error writing layer blob: connection refused"
    assert warnings == [f"the build cache was not stored, so the next build starts without it: {cause}"]


def test_a_cache_that_is_not_there_yet_is_no_warning(
    programs: Programs, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    programs.add("docker", docker(build=IMPORT_FAILED))
    asked = request(
        source,
        cache_from=("type=registry,ref=registry.example.com/app:cache",),
        cache_to=("type=registry,ref=registry.example.com/app:cache,ignore-error=true",),
    )
    BuildxBuilder(programs.env).build(asked, source.parent / "out")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
