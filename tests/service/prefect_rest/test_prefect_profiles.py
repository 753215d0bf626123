"""Which of Prefect's profiles is active, held against Prefect itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.prefect_rest.profiles import active_profile


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PREFECT_HOME", "{home}/own"),
        ("PREFECT_HOME", "~/own"),
        ("PREFECT_PROFILES_PATH", "{home}/own/profiles.toml"),
        ("PREFECT_PROFILES_PATH", "~/own/profiles.toml"),
    ],
)
def test_the_profile_is_looked_for_where_prefect_itself_looks(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    profile = 'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    (tmp_path / "own" / "profiles.toml").write_text(profile)
    environment = {"HOME": str(tmp_path), "PATH": os.defpath, variable: value.format(home=tmp_path)}
    code = "from prefect.settings import get_current_settings; print(get_current_settings().api.url or '')"
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert active_profile(environment).get("PREFECT_API_URL", "") == asked.stdout.strip()
