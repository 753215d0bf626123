"""What the documents say is held to: every command is run by some test, every link leads somewhere."""

import ast
import functools
import re
import urllib.parse
from pathlib import Path

import pytest

from tests.support.documentation import (
    REPOSITORY,
    SECTIONS_RUN_IN_ORDER,
    SHELL_LANGUAGES,
    Block,
    documented,
    documents,
    shell_blocks,
)

# By document and the beginning of a line: the blocks that no test can run, and why.
NOT_RUN: dict[tuple[str, str], str] = {
    ("README.md", "make demo"): "`tests/real/local_stack/test_demo.py` runs what the target runs",
    ("examples/docker-classic/README.md", "soci-pipeline publish"): (
        "it needs workers with the classic builder; `tests/real/test_builders.py` builds the example with it"
    ),
    ("examples/hello-web/README.md", "docker build"): (
        "its base image is on a public registry; `tests/real/local_stack/test_demo.py` builds it on one of its own"
    ),
    ("deployments/worker-image/README.md", ".venv/bin/soci-pipeline publish"): (
        "its base image is on a public registry; `tests/deep/test_worker_image.py` publishes it on one of its own"
    ),
    ("deployments/worker-image/README.md", "--group-add"): (
        "it hands the machine's engine over; `tests/deep/test_worker_image.py` runs the image without one"
    ),
    ("docs/aws.md", "prefect work-pool create"): (
        "its workers need a cluster of ECS; `tests/service/deployments/test_ecs_pools.py` checks the templates"
    ),
    ("docs/triggers.md", "prefect cloud webhook create"): "it needs an account of Prefect Cloud",
}

_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+(?:\([^()]*\))?)(?:\s+\"[^\"]*\")?\)")
_SOURCE = re.compile(r"(?:src|href)=\"(?P<target>[^\"]+)\"|srcset=\"(?P<set>[^\"]+)\"")
_FENCED = re.compile(r"^( *)(`{3,}).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)


@functools.cache
def _asked_for() -> tuple[tuple[str, str], ...]:
    """The literal arguments of each call of `documented` in the tests."""
    found: list[tuple[str, str]] = []
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "documented(" in text else ():
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            if node.func.id == "documented" and path != Path(__file__) and len(words) == 2:
                found.append((words[0], words[1]))
    return tuple(found)


def _fits(block: Block, account: tuple[str, str]) -> bool:
    return block.document == account[0] and block.has(account[1])


def test_every_shell_block_is_run_by_a_test_or_has_a_reason_why_not() -> None:
    accounts = [*_asked_for(), *NOT_RUN]
    others = [block for block in shell_blocks() if (block.document, block.section) not in SECTIONS_RUN_IN_ORDER]
    left = [f"{block}\n{block.text}" for block in others if not any(_fits(block, each) for each in accounts)]
    assert not left, "commands that nothing runs:\n" + "\n".join(left)


@pytest.mark.parametrize("account", NOT_RUN, ids=" ".join)
def test_a_reason_is_given_for_one_block_that_no_test_runs(account: tuple[str, str]) -> None:
    block = documented(*account)
    assert NOT_RUN[account]
    assert not [each for each in _asked_for() if _fits(block, each)], "a test runs it, so it needs no reason"


def test_a_command_in_an_indented_block_would_be_overlooked() -> None:
    """Commands are shown in fenced blocks that say so, since no others are looked at."""
    programs = re.compile(r"^(?: {4}|\t)(?:soci-pipeline|prefect|docker|make|curl|aws|git|\$) ", re.MULTILINE)
    for document in documents():
        prose = _FENCED.sub("", document.read_text())
        assert not programs.findall(prose), f"{document} shows commands outside of a fenced block"


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of headings: lower case, no punctuation, dashes for spaces, numbered repeats."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)\s*#*$", _FENCED.sub("", document.read_text()), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        repeats = sum(1 for each in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", each))
        found.add(f"{name}-{repeats}" if name in found else name)
    return found


def _links(document: Path) -> list[str]:
    prose = re.sub(r"`[^`\n]+`", "", _FENCED.sub("", document.read_text()))
    links = [found["target"] for found in _LINK.finditer(prose)]
    links += [found["target"] or found["set"] for found in _SOURCE.finditer(prose)]
    return links


def _broken(document: Path, link: str) -> str | None:
    parts = urllib.parse.urlsplit(link)
    if parts.scheme:
        return (
            None if parts.scheme in {"http", "https", "mailto"} and (parts.netloc or parts.path) else "not a valid URL"
        )
    target = (document.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else document
    if not target.is_relative_to(REPOSITORY):
        return "points outside of the repository"
    if not target.exists():
        return "there is no such file"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in _anchors(target):
        return f"{target.name} has no heading for #{parts.fragment}"
    return None


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = {link: why for link in _links(document) if (why := _broken(document, link))}
    assert not broken


def test_every_test_that_a_document_names_exists() -> None:
    """So that what is said to be shown by a test is."""
    tests = (REPOSITORY / "tests").rglob("test_*.py")
    there = {name for path in tests for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.M)}
    named = {name for document in documents() for name in re.findall(r"`(test_\w+)`", document.read_text())}
    assert len(named) > 20
    assert not named - there


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_path_of_the_repository_that_a_document_names_exists(document: Path) -> None:
    prose = _FENCED.sub("", document.read_text())
    named = set(re.findall(r"`((?:src|tests|tasks|flows|docs|deployments|examples|benchmarks)/[\w./-]+)`", prose))
    assert not {name for name in named if not (REPOSITORY / name).exists()}


def test_every_decision_is_listed_once_under_a_number_of_its_own() -> None:
    folder = REPOSITORY / "docs" / "adr"
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert len({name[:4] for name in pages}) == len(pages)
    listed = re.findall(r"^\d+\. \[.+\]\((\S+)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert listed == pages


def test_the_link_check_finds_what_is_broken() -> None:
    readme = REPOSITORY / "README.md"
    assert _broken(readme, "docs/glossary.md#glossary") is None
    assert _broken(readme, "https://www.prefect.io") is None
    assert _broken(readme, "docs/glossary.md#no-such-heading") == "glossary.md has no heading for #no-such-heading"
    assert _broken(readme, "docs/nowhere.md") == "there is no such file"
    assert _broken(readme, "../elsewhere.md") == "points outside of the repository"
    assert _broken(readme, "javascript:") == "not a valid URL"


def test_shell_blocks_are_found_in_the_documents() -> None:
    """The check above would pass if the reader of blocks found nothing."""
    assert {block.document for block in shell_blocks()} >= {"README.md", "docs/workers.md"}
    assert {(block.document, block.section) for block in shell_blocks()} >= set(SECTIONS_RUN_IN_ORDER)
    assert all(block.language in SHELL_LANGUAGES for block in shell_blocks())
