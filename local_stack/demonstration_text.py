"""The result of `make demo`: a table of digests for people, one JSON object for programs."""

import re
import shlex
import sys
from typing import Any

from local_stack.demonstration import Demonstration
from soci_pipeline.publish.result_table import digest_lines


def as_json(result: Demonstration, seconds: float) -> dict[str, Any]:
    """Return the object for ``--json``; ``duration_s`` is the whole command, ``publish_s`` the flow run."""
    publication = result.publication
    return {
        "reference": publication.reference,
        "index": str(publication.index),
        "platforms": [record.summary() for record in publication.platforms],
        "tags": list(publication.tags),
        "duration_s": round(seconds, 1),
        "publish_s": round(publication.seconds, 1),
        "builder": result.builder,
        "not_built": result.not_built,
        "page": result.page,
    }


def as_text(result: Demonstration, seconds: float, *, still_up: bool = False) -> str:
    """Return the table of digests, commands to try while the stack is up, and the running image's response."""
    publication = result.publication
    lines = [
        "",
        f"{publication.reference} is published.",
        "",
        *digest_lines(publication.index, publication.platforms),
        "",
        f"  tags:     {', '.join(publication.tags)}",
        *(_to_try(result) if still_up else []),
        f"  time:     {seconds:.0f} s, {publication.seconds:.0f} s of it for publishing",
    ]
    if result.page is not None:
        lines.append(f"  run:      the image answered: {_headline(result.page)}")
    if result.not_built is not None and result.builder != "prebuilt":
        lines += ["", f"Not everything was built: {result.not_built}."]
    elif result.not_built is not None:
        lines += [
            "",
            f"Nothing was built: {result.not_built}.",
            "The images were assembled from wheels of each architecture; they were indexed, pushed, joined and",
            "verified like any other, but not run: they contain no interpreter.",
        ]
    return "\n".join(lines)


def _to_try(result: Demonstration) -> list[str]:
    reference = result.publication.reference
    pull = [f"  pull:     {result.docker} pull {reference}"] if result.docker else []
    run = f"  flow run: {result.publication.run_url}"
    return [run, *pull, f"  verify:   {shlex.quote(sys.executable)} -m soci_pipeline verify --all {reference}"]


def _headline(page: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", page)
    return found[1] if found else page.strip()[:100]
