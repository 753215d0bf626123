"""`soci-pipeline webhook serve` without the AWS credentials that a queue needs."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from soci_pipeline.errors import ExitCode
from tests.support import webhook as support


def test_a_queue_whose_aws_profile_is_not_there_is_a_matter_of_credentials(tmp_path: Path) -> None:
    config = tmp_path / "webhook.yaml"
    document = support.document(tmp_path)
    queue = "https://sqs.eu-west-1.amazonaws.com/1/events"
    document["sources"].append({"kind": "sqs", "name": "queue", "queue_url": queue, "region": "eu-west-1"})
    config.write_text(yaml.safe_dump(document))
    argv = [sys.executable, "-m", "soci_pipeline", "webhook", "serve", "--config", str(config)]
    environment = os.environ | {"AWS_PROFILE": "nope"}
    done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.CREDENTIALS
    assert "nope" in done.stderr
