from contextlib import ExitStack
from pathlib import Path

import pytest

from soci_pipeline.containerd.soci_command import MINIMUM_STANDALONE, _mount_point, find_soci
from soci_pipeline.errors import ToolFailed, ToolMissing
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.tool_versions import ToolTooOld
from tests.support.fake_programs import Programs
from tests.support.images import AMD64

OPTIONS = SociOptions(version=IndexVersion.V1, span_size=1 << 20, min_layer_size=5)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


def soci(version: str, *, flags: str = "--root value", body: str = "exit 0") -> str:
    return f"""
case "$1" in
  --version) echo "soci version {version}"; exit ;;
  --help) printf 'GLOBAL OPTIONS:\\n   {flags}   a folder\\n'; exit ;;
esac
{body}
"""


def test_a_missing_soci_names_its_package(programs: Programs, tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="'soci'") as caught:
        find_soci({"PATH": str(programs.folder)}, tmp_path / "store")
    assert "soci-snapshotter" in str(caught.value)


def test_an_old_soci_is_refused_with_the_reason(programs: Programs, tmp_path: Path) -> None:
    programs.add("soci", soci("v0.3.0"))
    with pytest.raises(ToolTooOld, match=r"0\.3\.0"):
        find_soci(programs.env, tmp_path / "store")


def test_v2_wants_a_newer_one(programs: Programs, tmp_path: Path) -> None:
    programs.add("soci", soci("0.4.1-5+b3 0.4.1-5+b3"))
    with pytest.raises(ToolTooOld, match=r"soci is 0\.4\.1, but 0\.14\.0 is required for `convert --standalone`"):
        find_soci(programs.env, tmp_path / "store", minimum=MINIMUM_STANDALONE)


def test_a_release_that_knows_the_flag_keeps_its_store_in_the_runs_folder(programs: Programs, tmp_path: Path) -> None:
    programs.add("soci", soci("v0.15.0 abc", body="echo 'layer sha256:1 -> ztoc sha256:2'"))
    command = find_soci(programs.env, tmp_path / "store")
    assert command.create("127.0.0.1:1/a:b", AMD64, OPTIONS)
    command.push("127.0.0.1:1/a:b", AMD64)
    create, push = programs.calls()[-2:]
    sizes = "--span-size 1048576 --min-layer-size 5"
    assert create == f"soci --root {tmp_path}/store create --platform linux/amd64 {sizes} 127.0.0.1:1/a:b"
    assert push == f"soci --root {tmp_path}/store push --plain-http --platform linux/amd64 127.0.0.1:1/a:b"


def test_nothing_large_enough_is_no_failure(programs: Programs, tmp_path: Path) -> None:
    body = "echo 'soci: no ztocs created, all layers either skipped or produced errors' >&2; exit 1"
    programs.add("soci", soci("v0.15.0 abc", body=body))
    command = find_soci(programs.env, tmp_path / "store")
    assert not command.create("127.0.0.1:1/a:b", AMD64, OPTIONS)
    assert not command.convert(tmp_path, tmp_path / "out", OPTIONS)


def test_any_other_failure_is_one(programs: Programs, tmp_path: Path) -> None:
    programs.add("soci", soci("v0.15.0 abc", body="echo 'soci: connection refused' >&2; exit 1"))
    command = find_soci(programs.env, tmp_path / "store")
    with pytest.raises(ToolFailed, match="connection refused"):
        command.create("127.0.0.1:1/a:b", AMD64, OPTIONS)
    with pytest.raises(ToolFailed, match="connection refused"):
        command.convert(tmp_path, tmp_path / "out", OPTIONS)


def test_times_are_written_in_utc(programs: Programs, tmp_path: Path) -> None:
    programs.add("soci", soci("v0.15.0 abc", body='echo "TZ=$TZ" >> "$CALLS"'))
    find_soci(programs.env | {"TZ": "Asia/Tokyo"}, tmp_path / "store").convert(tmp_path, tmp_path / "out", OPTIONS)
    assert programs.calls()[-1] == "TZ=UTC"


@pytest.fixture
def fixed_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that an older release always uses, moved off this machine's own."""
    folder = tmp_path / "fixed"
    monkeypatch.setattr("soci_pipeline.containerd.soci_command._FIXED_STORE", folder)
    return folder


OLDER = soci("v0.4.1", flags="--debug", body='[ "$1" = push ] && exit; ls -d "$FIXED" >> "$CALLS"; echo "-> ztoc"')
# It changes no mounts, which only root may do; the tests with the real program do.
UNSHARE = 'while [ "$1" != sh ]; do shift; done; echo "over: $6" >> "$CALLS"; shift 6; exec "$@"'


def test_an_older_release_finds_the_runs_folder_mounted_over_the_fixed_one(
    programs: Programs, tmp_path: Path, fixed_store: Path
) -> None:
    programs.add("soci", OLDER)
    programs.add("unshare", UNSHARE)
    command = find_soci(programs.env | {"FIXED": str(fixed_store)}, tmp_path / "store")
    assert command.create("127.0.0.1:1/a:b", AMD64, OPTIONS)
    assert f"over: {fixed_store}" in programs.calls()
    # It was there for the program, and is gone with the run that made it.
    assert str(fixed_store) in programs.calls()
    assert not fixed_store.exists()


def test_the_fixed_folder_of_the_machine_itself_stays(programs: Programs, tmp_path: Path, fixed_store: Path) -> None:
    programs.add("soci", OLDER)
    programs.add("unshare", UNSHARE)
    fixed_store.mkdir()
    find_soci(programs.env | {"FIXED": str(fixed_store)}, tmp_path / "store").push("127.0.0.1:1/a:b", AMD64)
    assert fixed_store.is_dir()


def test_the_fixed_folder_stays_as_long_as_another_run_uses_it(tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    with ExitStack() as other:
        other.enter_context(_mount_point(folder))
        with _mount_point(folder):
            pass
        assert folder.is_dir()
    assert not folder.exists()
