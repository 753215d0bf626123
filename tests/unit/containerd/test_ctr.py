import socket
from pathlib import Path

import pytest

from soci_pipeline.containerd.ctr import Containerd, purged_afterwards
from soci_pipeline.errors import EngineUnavailable, ToolFailed
from soci_pipeline.tool_versions import ToolTooOld
from tests.support.fake_programs import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


def containerd(programs: Programs) -> Containerd:
    return Containerd(Path("/nowhere.sock"), "soci-pipeline-1", programs.env)


LISTS = """
case "$*" in
  --version) echo "ctr github.com/containerd/containerd 1.7.24~ds1" ;;
  "namespaces list --quiet") echo soci-pipeline-1 ;;
  "images list --quiet") echo 127.0.0.1:5000/a:b ;;
  "leases list --quiet") echo lease-1 ;;
  "content list --quiet") echo sha256:1; echo sha256:2 ;;
  "content remove sha256:1") exit 1 ;;
esac
"""


def test_the_socket_and_the_namespace_reach_the_program_by_its_environment(programs: Programs) -> None:
    programs.add("ctr", 'echo "$CONTAINERD_ADDRESS $CONTAINERD_NAMESPACE" >> "$CALLS"')
    containerd(programs).push("127.0.0.1:5000/a:b")
    assert programs.calls()[-1] == "/nowhere.sock soci-pipeline-1"


def test_everything_in_the_namespace_goes_and_then_the_namespace(programs: Programs) -> None:
    programs.add("ctr", LISTS)
    containerd(programs).purge()
    assert [call for call in programs.calls() if "list" not in call] == [
        "ctr images remove --sync 127.0.0.1:5000/a:b",
        "ctr leases delete --sync lease-1",
        "ctr content remove sha256:1",
        "ctr content remove sha256:2",
        "ctr namespaces remove soci-pipeline-1",
    ]


def test_a_namespace_that_was_never_made_is_fine(programs: Programs) -> None:
    programs.add("ctr", "exit 0")
    containerd(programs).purge()
    assert programs.calls() == ["ctr namespaces list --quiet"]


def test_a_failure_in_the_block_is_not_hidden_by_a_failing_purge(programs: Programs) -> None:
    programs.add("ctr", "exit 1")
    with pytest.raises(ValueError, match="the real one"), purged_afterwards(containerd(programs)):
        raise ValueError("the real one")


def test_a_containerd_that_does_not_answer_is_named(programs: Programs) -> None:
    programs.add("ctr", 'test "$1" = --version && echo "ctr containerd 1.7.24" && exit; echo refused >&2; exit 1')
    with pytest.raises(EngineUnavailable, match="refused"):
        containerd(programs).check()


def test_an_old_ctr_is_refused(programs: Programs) -> None:
    programs.add("ctr", 'echo "ctr containerd.io 1.4.3"')
    with pytest.raises(ToolTooOld, match=r"1\.4\.3"):
        containerd(programs).check()


def test_a_failing_import_carries_what_the_program_said(programs: Programs, tmp_path: Path) -> None:
    programs.add("ctr", "echo 'unrecognized image format' >&2; exit 1")
    with pytest.raises(ToolFailed, match="unrecognized image format"):
        containerd(programs).import_archive(tmp_path)


def test_a_socket_file_without_a_server_is_no_crash(tmp_path: Path, programs: Programs) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    programs.add("ctr", "exit 1")
    with pytest.raises(ToolFailed):
        Containerd(tmp_path / "s", "x", programs.env).purge()
