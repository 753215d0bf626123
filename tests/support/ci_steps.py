"""Run CI steps locally: those of a composite GitHub Action, and the scripts of GitLab jobs.

GitHub's expressions (``${{ … }}``) are evaluated where an action may have them, which excludes shell scripts. A
dictionary replaces the two actions for artifacts.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.documentation import REPOSITORY

_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
# As GitHub runs `shell: bash`, and GitLab a script.
_GITHUB_BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


def load(path: str) -> dict[str, Any]:
    """Load a YAML file of the repository."""
    document = yaml.safe_load((REPOSITORY / path).read_text())
    assert isinstance(document, dict)
    return document


@dataclass
class Runner:
    """A GitHub runner: its temporary folder, the environment of all steps, and the artifacts."""

    folder: Path
    env: Mapping[str, str]
    artifacts: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def run(self, action: str, inputs: Mapping[str, str]) -> dict[str, str]:
        """Run the action in a folder; return its outputs. Raises `CalledProcessError` if a step fails."""
        document = load(f"{action}/action.yml")
        defaults = {name: str(each.get("default", "")) for name, each in document["inputs"].items()}
        assert inputs.keys() <= defaults.keys(), "an input that the action does not have"
        values = {f"inputs.{name}": text for name, text in (defaults | dict(inputs)).items()}
        values |= {"github.server_url": "https://github.com", "github.repository": "acme/web", "github.sha": "0" * 40}
        for name in document["inputs"]:
            values[f"inputs.{name}"] = _filled(values[f"inputs.{name}"], values)
        for number, step in enumerate(document["runs"]["steps"]):
            if "uses" in step:
                self._artifacts(step["uses"], {name: _filled(value, values) for name, value in step["with"].items()})
                continue
            for name, text in self._shell(action, step, values, number).items():
                values[f"steps.{step['id']}.outputs.{name}"] = text
        return {name: _filled(each["value"], values) for name, each in document.get("outputs", {}).items()}

    def _shell(self, action: str, step: Mapping[str, Any], values: Mapping[str, str], number: int) -> dict[str, str]:
        script, output = self.folder / f"step-{number}.sh", self.folder / f"output-{number}"
        script.write_text(step["run"])
        output.write_text("")
        own = {name: _filled(text, values) for name, text in step.get("env", {}).items()}
        places = {
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_ACTION_PATH": str(REPOSITORY / action),
        }
        _run([*_GITHUB_BASH, str(script)], {**self.env, **places, **own}, self.folder)
        return dict(line.split("=", 1) for line in output.read_text().splitlines())

    def _artifacts(self, action: str, given: Mapping[str, str]) -> None:
        """Emulate the two actions for artifacts."""
        if action.startswith("actions/upload-artifact@"):
            folder = Path(given["path"])
            self.artifacts[given["name"]] = {path.name: path.read_bytes() for path in folder.iterdir()}
            return
        assert action.startswith("actions/download-artifact@")
        Path(given["path"]).mkdir(parents=True, exist_ok=True)
        for name, files in self.artifacts.items():
            if name.startswith(given["pattern"].removesuffix("*")):
                for file, data in files.items():
                    (Path(given["path"]) / file).write_bytes(data)


def run_gitlab_job(
    document: Mapping[str, Any], job: str, folder: Path, env: Mapping[str, str], *, shell: str = "bash"
) -> None:
    """Run the script of a job; ``env`` has the variables of GitLab and of the project, which override the job's."""
    chain = [document[job]]
    while "extends" in chain[0]:
        chain.insert(0, document[chain[0]["extends"]])
    variables: dict[str, str] = {}
    for each in chain:
        variables |= each.get("variables", {})
    filled = {name: re.sub(r"\$(\w+)", lambda found: env.get(found[1], ""), text) for name, text in variables.items()}
    options = ("-eo", "pipefail") if shell == "bash" else ("-e",)
    for line in chain[-1]["script"]:
        _run([shell, *options, "-c", line], {**filled, **env}, folder)


def _filled(value: object, values: Mapping[str, str]) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _EXPRESSION.sub(lambda found: values[found[1]], text)


def _run(command: list[str], env: Mapping[str, str], folder: Path) -> None:
    done = subprocess.run(
        command, env={**os.environ, **env}, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    print(done.stdout, done.stderr)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
