"""That pytest finds every test: a folder which it passes over looks like one whose tests pass."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_no_file_of_tests_is_passed_over(tmp_path: Path) -> None:
    """Collected with the project's settings, from files with one test each in place of the real ones: in a second."""
    wanted = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "tests").rglob("test_*.py")}
    for name in wanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def test_it(): pass\n")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    found = {line.partition("::")[0] for line in done.stdout.splitlines() if line.endswith("::test_it")}
    assert found == wanted
    assert Path(__file__).relative_to(REPOSITORY).as_posix() in found


def test_the_tests_that_run_on_a_fresh_machine_exist() -> None:
    tree = ast.parse((REPOSITORY / "tests" / "deep" / "test_fresh_machine.py").read_text())
    (listed,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TOUCHES_THE_MACHINE"
    )
    assert [each for each in listed if not (REPOSITORY / "tests" / "unit" / each).exists()] == []
