"""Errors of builds, most of them raised before a build starts."""

import re
from typing import ClassVar

from soci_pipeline.errors import BuildFailed, DiskFull, EngineUnavailable, InvalidInput
from soci_pipeline.oci.platform import Platform


class OutsideSource(InvalidInput):
    """A path in the request leaves the source tree by ``..``, as an absolute path or through a symbolic link."""

    default_advice: ClassVar[str | None] = "Use a path inside the source; nothing outside it is ever sent to a build."


class DockerfileMissing(InvalidInput):
    """The Dockerfile named in the request does not exist."""

    default_advice: ClassVar[str | None] = (
        "`dockerfile` is relative to `context`, and both must be in the commit that is built."
    )


class ContextMissing(InvalidInput):
    """The build context named in the request does not exist or is not a folder."""

    default_advice: ClassVar[str | None] = "`context` is a folder, relative to the top of the source."


class NotSupportedByBuilder(InvalidInput):
    """The chosen builder does not support what the request needs."""

    default_advice: ClassVar[str | None] = "Choose the builder `buildx`."


class BuilderUnavailable(EngineUnavailable):
    """The engine answers, but cannot provide a BuildKit builder that exports OCI archives."""

    default_advice = (
        "The engine must be able to pull BuildKit's image; or enable its containerd image store, name an existing "
        "builder in `buildx_builder`, or choose the builder `docker`."
    )


# A line of BuildKit's progress. It repeats the last lines of a step that failed, without this beginning.
_PROGRESS = re.compile(r"#\d{1,6} (?P<said>.*)")


def build_failure(platform: Platform, output: str) -> BuildFailed | DiskFull:
    """Return the error for a build that failed, with each of the last lines of its output once."""
    lines = output.splitlines(keepends=True)
    texts = {line.strip() for line in lines}
    progress = ((line, _PROGRESS.match(line)) for line in lines)
    output = "".join(line for line, found in progress if found is None or found["said"].strip() not in texts)
    if "no space left on device" in output:
        return DiskFull(f"no space left on a disk that the build for {platform} uses\n{output}")
    return BuildFailed(f"the build for {platform} failed\n{output}")
