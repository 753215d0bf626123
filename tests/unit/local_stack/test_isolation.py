"""The script that hides folders; that it does is shown by the real tier, which has root."""

from pathlib import Path

from local_stack.isolation import isolated


def test_only_kept_folders_below_hidden_ones_are_held_aside(tmp_path: Path) -> None:
    for name in ("hidden/kept", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    argv = isolated(
        ["program", "an argument"],
        hide=[tmp_path / "hidden"],
        keep=[tmp_path / "hidden/kept", tmp_path / "elsewhere", tmp_path / "hidden/missing"],
        aside=tmp_path / "aside",
    )
    script = argv[-1]
    assert argv[:2] == ["unshare", "--mount"]
    assert script.count("--rbind") == 2
    assert "elsewhere" not in script
    assert script.endswith("exec program 'an argument'")
