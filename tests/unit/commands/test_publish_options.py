"""The options of `publish`, as the documents show them."""

import shlex

import pytest

from soci_pipeline.cli import GROUP
from soci_pipeline.commands.publish_options import request_of
from tests.support.documentation import shell_blocks

OUTPUTS = {"$(output Source)": "https://git.example.com/shop.git", "$(output ImageRepositoryUri)": "127.0.0.1:9/shop"}


def _documented_publications() -> dict[str, list[str]]:
    """What stands behind `soci-pipeline` in each documented command that publishes, by its place."""
    found: dict[str, list[str]] = {}
    for block in shell_blocks():
        for command in block.commands():
            words = [OUTPUTS.get(word, word) for word in shlex.split(command.replace("\\\n", " "), comments=True)]
            programs = [place for place, word in enumerate(words) if word.endswith("soci-pipeline")]
            arguments = words[programs[0] + 1 :] if programs else []
            if arguments[:1] == ["publish"]:
                found[f"{block} {arguments[1]}"] = arguments
    return found


@pytest.mark.parametrize("words", _documented_publications().values(), ids=_documented_publications())
def test_every_documented_publication_has_valid_parameters(words: list[str]) -> None:
    with GROUP.make_context(GROUP.program, list(words)) as context:
        arguments = GROUP.invoke(context).arguments
    source = arguments.source if "://" in arguments.source else f"/clone/{arguments.source}"
    assert str(request_of(arguments, source=source).image) == arguments.image


def test_the_main_job_is_documented_as_one_command() -> None:
    pages = {place.partition(":")[0] for place in _documented_publications()}
    assert pages >= {
        "README.md",
        "docs/get-started.md",
        "docs/compose.md",
        "docs/aws-from-an-empty-account.md",
        "examples/buildx-static-site/README.md",
    }
