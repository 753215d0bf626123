"""publish-image up to where machines are needed: its parameters, and what becomes of bad ones."""

from typing import Any

import pytest

from flows.publish_image import publish_image
from soci_pipeline.errors import InvalidInput

SOURCE = "https://git.example.com/team/app.git"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": "localhost:5000/team/app:v1"}, "image: .*has a tag or digest"),
        ({"platforms": []}, "platforms: at least one platform"),
        ({"platforms": ["linux/amd64", "linux/x86_64"]}, "platforms: duplicate"),
        ({"build_args": {"NPM_TOKEN": "t0psecret"}}, "build_args: .*looks like a secret"),
        ({"build_secrets": {"npm": "t0psecret"}}, "build_secrets: .*must name a Prefect block"),
        ({"dockerfile": "../Dockerfile"}, "not a path inside the source"),
        ({"source": "--upload-pack=touch /tmp/x"}, "source: "),
        ({"tags": ["{nothing}"]}, "tags: "),
        ({"builder": "prebuilt"}, "requires the parameter prebuilt"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_looked_up(wrong: dict[str, Any], message: str) -> None:
    parameters: dict[str, Any] = {"image": "localhost:1/team/app", "source": SOURCE} | wrong
    # Nothing answers at that registry or source: whoever asked them would report that instead.
    with pytest.raises(InvalidInput, match=message) as caught:
        publish_image.fn(**parameters)
    assert "t0psecret" not in str(caught.value)
