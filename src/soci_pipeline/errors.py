"""The errors of the library: one tree; each class has its exit code, its cause and the next step.

Only the command line (`soci_pipeline.cli`) turns an error into an exit status; everything else lets it propagate. An
exception of another library is wrapped where its meaning is known, with ``raise … from``.
"""

from enum import IntEnum
from typing import ClassVar

TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed later (RFC 9110, RFC 8470, RFC 6585)."""


class ExitCode(IntEnum):
    """Exit statuses of the `soci-pipeline` command; 2 is click's own for a usage error."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID_INPUT = 3
    NOT_INDEXABLE = 4
    DAMAGED_CONTENT = 5
    HOSTILE_ARCHIVE = 6
    TOOL_MISSING = 7
    TOOL_FAILED = 8
    ENGINE_UNAVAILABLE = 9
    REGISTRY_REFUSED = 10
    REGISTRY_UNREACHABLE = 11
    CREDENTIALS = 12
    SOURCE = 13
    BUILD_FAILED = 14
    PLATFORM_MISMATCH = 15
    JOIN_REFUSED = 16
    VERIFICATION_FAILED = 17
    TAG_CONFLICT = 18
    NO_WORKER = 19
    BRANCH_FAILED = 20
    DISK_FULL = 21
    STACK = 22
    TIMEOUT = 23
    NOTHING_STARTED = 24
    CONFLICT = 25


class SociPipelineError(Exception):
    """Base of every error that this library raises on purpose.

    ``reason`` says what happened, ``advice`` what to do next; both are shown to the user and must not contain secrets.
    ``temporary`` tells retry policies whether the same call may succeed later.
    """

    exit_code: ExitCode = ExitCode.UNEXPECTED
    """The exit status of a command that ends with this error; unique to each class unless it stands for another."""
    default_advice: ClassVar[str | None] = None
    retry_after: float | None = None
    """Seconds that a server asked to wait before a retry; None if it did not say."""
    url: str = ""
    """The URL of the failed request, without user and query; empty if there was no request."""
    links: tuple[str, ...] = ()
    """Lines with URLs where the details are, for example a run's page. They are shown after the next step."""

    def __init__(self, reason: str, *, advice: str | None = None, temporary: bool = False) -> None:
        # Output of a server or a file name may contain lone surrogates, which logs and terminals cannot encode.
        self.reason = reason.encode(errors="backslashreplace").decode()
        super().__init__(self.reason)
        self.advice = advice if advice is not None else self.default_advice
        self.temporary = temporary

    def __str__(self) -> str:
        return "\n".join([self.reason, *([f"  next: {self.advice}"] if self.advice else []), *self.links])


class InvalidInput(SociPipelineError):
    """A parameter, reference, platform or file is invalid; nothing was changed."""

    exit_code = ExitCode.INVALID_INPUT


class LayerNotIndexable(SociPipelineError):
    """No zTOC can be written for a valid layer; ``code`` is the recorded reason (see `soci.reasons`)."""

    exit_code = ExitCode.NOT_INDEXABLE
    default_advice = "The image stays usable; this layer is pulled whole before the container starts."

    def __init__(self, code: str, detail: str, *, advice: str | None = None) -> None:
        super().__init__(f"{code}: {detail}", advice=advice)
        self.code = code
        self.detail = detail


class DamagedContent(SociPipelineError):
    """Bytes do not match their digest, size or checksum."""

    exit_code = ExitCode.DAMAGED_CONTENT
    default_advice = "Download or build it again; if the error persists, the copy at its source is damaged."


class HostileArchive(SociPipelineError):
    """An archive tries to leave its folder, contradicts itself or exceeds a limit; it was rejected unread."""

    exit_code = ExitCode.HOSTILE_ARCHIVE
    default_advice = "Make the archive again with a tool that you trust."


class ToolMissing(SociPipelineError):
    """A required program is missing or too old; the advice names the package to install."""

    exit_code = ExitCode.TOOL_MISSING


class ToolFailed(SociPipelineError):
    """A program failed; the reason has its name, its exit status or signal, and its last lines."""

    exit_code = ExitCode.TOOL_FAILED


class EngineUnavailable(SociPipelineError):
    """The Docker engine or containerd does not answer."""

    exit_code = ExitCode.ENGINE_UNAVAILABLE
    default_advice = "Start the engine, or choose the builder `prebuilt`, which needs none."


class CredentialsRefused(SociPipelineError):
    """Credentials are missing, or the registry rejects them."""

    exit_code = ExitCode.CREDENTIALS
    default_advice = (
        "Log in: `docker login`, or SOCI_PIPELINE_REGISTRY with SOCI_PIPELINE_REGISTRY_USERNAME and "
        "SOCI_PIPELINE_REGISTRY_PASSWORD; for ECR, check the permissions of the role on the repository."
    )


class SourceError(SociPipelineError):
    """The git source or the ref cannot be resolved to a commit."""

    exit_code = ExitCode.SOURCE


class BuildFailed(SociPipelineError):
    """The build itself failed; the reason holds the last lines of its output."""

    exit_code = ExitCode.BUILD_FAILED
    default_advice = "Read the build log above, and correct the Dockerfile or the files that it copies."


class PlatformMismatch(SociPipelineError):
    """An image has a platform other than the requested one."""

    exit_code = ExitCode.PLATFORM_MISMATCH


class JoinRefused(SociPipelineError):
    """The branches cannot be joined into one image index; nothing was published."""

    exit_code = ExitCode.JOIN_REFUSED


class VerificationFailed(SociPipelineError):
    """The gate found errors in what was pushed; no tag was moved."""

    exit_code = ExitCode.VERIFICATION_FAILED


class TagConflict(SociPipelineError):
    """A tag that must not move points to another digest or a newer commit."""

    exit_code = ExitCode.TAG_CONFLICT


class NoWorker(SociPipelineError):
    """No worker is polling the work pool of a platform."""

    exit_code = ExitCode.NO_WORKER


class BranchFailed(SociPipelineError):
    """One or more platforms failed; each is named with its own error, and nothing was joined."""

    exit_code = ExitCode.BRANCH_FAILED


class DiskFull(SociPipelineError):
    """No space is left where blobs are written."""

    exit_code = ExitCode.DISK_FULL
    default_advice = "Free space, or point TMPDIR and the working folder at a larger disk."


class StackError(SociPipelineError):
    """A part of the local stack could not be started or did not become ready."""

    exit_code = ExitCode.STACK


class DeadlineExceeded(SociPipelineError):
    """An operation exceeded its deadline and was ended."""

    exit_code = ExitCode.TIMEOUT


def exit_code_of(name: str) -> ExitCode | None:
    """Return the exit status of the error class named in a flow run's state; None for any other name."""
    kinds: list[type[SociPipelineError]] = [SociPipelineError]
    for kind in kinds:
        if kind.__name__ == name:
            return kind.exit_code
        kinds += kind.__subclasses__()
    return None
