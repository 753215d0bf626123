"""A publication in this process: the work of flows and workers, with this machine's engine and without Prefect.

Platforms are built one after the other. There is no lock against a publication on another machine that moves the same
tags, unlike the concurrency limit of the flows; each tag is read again right before it is written.
"""

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.builders.platforms import HELP, buildable
from soci_pipeline.errors import EngineUnavailable, InvalidInput
from soci_pipeline.git.ancestry import CommitOrder
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.git.source import ResolvedSource, resolve
from soci_pipeline.log import logger
from soci_pipeline.machine.workspace import workspace
from soci_pipeline.oci.annotations import CREATED
from soci_pipeline.publish import local_branch
from soci_pipeline.publish.annotations import index_annotations
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.build_cache import CacheMode
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.publish.local_branch import retried
from soci_pipeline.publish.records import PublicationResult, PublishedImage
from soci_pipeline.publish.registries import check_answers, connect
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.secret_places import credentials_from, read_here
from soci_pipeline.publish.steps import (
    attest_commit,
    checked_target,
    published_image,
    push_joined,
    same_image,
    sign_where_configured,
    verified,
)
from soci_pipeline.publish.tag_names import TagNames, names_commit
from soci_pipeline.publish.tags import IsAncestor
from soci_pipeline.publish.target import Target
from soci_pipeline.publish.work_tree import WorkTree, below_top, check_folder, commit_of, read_work_tree, snapshot_of
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport


@dataclass(frozen=True, slots=True)
class Prepared:
    """The decisions before the first build: the commit or snapshot, the tags and the platforms.

    ``uncommitted`` says why the source is not a commit; ``left_out`` and ``not_built`` are those of the result.
    """

    request: PublishRequest
    source: ResolvedSource
    credentials: GitCredentials | None
    uncommitted: str | None
    names: TagNames
    left_out: dict[str, str]
    not_built: dict[str, str]

    @property
    def commit(self) -> str | None:
        """The commit that is published; None for uncommitted files."""
        return None if self.uncommitted else self.source.commit

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of the image index; for uncommitted files only their time."""
        found = index_annotations(self.source)
        return {CREATED: found[CREATED]} if self.uncommitted else found

    def ancestry(self) -> contextlib.AbstractContextManager[IsAncestor]:
        """Open the history of the source; uncommitted files have none, so their order is not checked."""
        if self.uncommitted:
            return contextlib.nullcontext(lambda _older, _newer: None)
        return CommitOrder(self.source.url, lambda: self.credentials)()


def check_local(request: PublishRequest) -> None:
    """Raise `InvalidInput` for parameters that only a publication through Prefect supports."""
    if request.worker_wait is not None:
        raise InvalidInput(
            "--worker-wait applies only to a publication through Prefect", advice="Omit it, or add --remote."
        )
    for place in (*request.build_secrets.values(), *filter(None, [request.source_credentials])):
        if not place.startswith("arn:"):
            # Before the build starts, not after it.
            read_here(place)


def warn_of_unused_block(image: ImageReference, settings: Settings) -> None:
    """Log a setting that a publication to ECR from this machine ignores."""
    if settings.ecr.credentials_block and EcrRegistry.parse(image.registry) is not None:
        logger().warning(
            "SOCI_PIPELINE_ECR_CREDENTIALS_BLOCK=%s is ignored: only a run through Prefect can read a block. The AWS "
            "credentials of this machine are used for ECR.",
            settings.ecr.credentials_block,
        )


@contextlib.contextmanager
def prepared(
    request: PublishRequest, settings: Settings, *, all_platforms: bool, needs_tags: bool = True
) -> Iterator[tuple[Prepared, Path]]:
    """Resolve the source, and choose tags and platforms, in a folder that exists for the duration of the block.

    ``all_platforms`` is set if the user chose the platforms: one that this machine cannot build is then not skipped.
    ``needs_tags`` rejects an uncommitted source if only tags of the commit were requested. Raises `InvalidInput`.
    """
    check_local(request)
    tree = read_work_tree(Path(request.source)) if request.source.startswith("/") else None
    uncommitted = None if tree is None or request.ref is not None else tree.why_uncommitted
    kept, left_out = _tags(request, tree, uncommitted, needed=needs_tags)
    if tree is not None and request.ref is None:
        check_folder(tree, request)
    with workspace(settings.work.folder, f"publish-{uuid.uuid4().hex[:12]}", REMOVERS) as folder:
        request, not_built = _buildable(request, settings, all_platforms=all_platforms)
        place = request.source_credentials
        credentials = None if place is None else credentials_from(place, read_here)
        request, source = _source(request, tree, uncommitted, folder, credentials)
        own = request.platforms if request.platform_tags else ()
        names = TagNames.render(kept, source, datetime.now(UTC).date(), platforms=own)
        yield Prepared(request, source, credentials, uncommitted, names, left_out, not_built), folder


def prepared_commit(request: PublishRequest, credentials: GitCredentials | None) -> Prepared:
    """Resolve the source to a commit and fill in the tags; raise as `soci_pipeline.git.source.resolve`."""
    files = request.required_files
    source = retried(lambda: resolve(request.source, request.ref, files=files, credentials=credentials))
    names = request.tag_names(source, datetime.now(UTC).date())
    return Prepared(request, source, credentials, None, names, {}, {})


def _buildable(
    request: PublishRequest, settings: Settings, *, all_platforms: bool
) -> tuple[PublishRequest, dict[str, str]]:
    """Return the request for the platforms that this machine can build, and why others are skipped.

    Chosen platforms are kept if BuildKit builds, because it needs an emulator only for RUN steps.
    """
    possible = buildable(request.builder, buildx_builder=settings.build.buildx_builder)
    missing = [] if possible is None else [each for each in request.platforms if each not in possible]
    if possible is None or not missing:
        return request, {}
    names = ", ".join(str(each) for each in sorted(possible) if each.architecture != "amd64" or not each.variant)
    named = settings.build.buildx_builder
    reason = f"{f'the builder {named}' if named else 'this machine'} builds {names or 'no platform'} only"
    shown = ", ".join(map(str, missing))
    if all_platforms and request.builder is not BuilderName.DOCKER:
        # Not a warning: a build without RUN steps succeeds, and --quiet shows warnings.
        logger().info("RUN steps for %s require an emulator: %s", shown, HELP)
        return request, {}
    left = tuple(platform for platform in request.platforms if platform in possible)
    if all_platforms or not left:
        raise EngineUnavailable(f"--platform {shown}: {reason}", advice=f"Choose one of {names}; or {HELP}.")
    logger().info("%s is not built, because %s; to add it, %s", shown, reason, HELP)
    return request.model_copy(update={"platforms": left}), {str(platform): reason for platform in missing}


def _source(
    request: PublishRequest,
    tree: WorkTree | None,
    uncommitted: str | None,
    folder: Path,
    credentials: GitCredentials | None,
) -> tuple[PublishRequest, ResolvedSource]:
    """Return the request with paths relative to the source that is built, and that source."""
    if tree is None:
        files = request.required_files
        return request, retried(lambda: resolve(request.source, request.ref, files=files, credentials=credentials))
    if uncommitted is not None:
        logger().warning("publishing the uncommitted files: %s", uncommitted)
        if request.cache is not CacheMode.OFF:
            # The cache's name would be that of the snapshot's repository, which no other run has.
            logger().warning("--cache %s is ignored: uncommitted files have no build cache", request.cache)
            request = request.model_copy(update={"cache": CacheMode.OFF})
        return request, snapshot_of(tree, folder / "snapshot.git", files=request.required_files)
    inside = request.model_copy(update={"context": below_top(tree, request.context)})
    return inside, commit_of(tree, request.ref, files=inside.required_files)


def _tags(
    request: PublishRequest, tree: WorkTree | None, uncommitted: str | None, *, needed: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the templates to fill in, and those that require a commit and are skipped without one."""
    if uncommitted is None:
        return request.tags, {}
    head = None if tree is None else tree.head
    left_out = {tag: uncommitted for tag in request.tags if names_commit(tag, head)}
    kept = tuple(tag for tag in request.tags if tag not in left_out)
    if not kept and needed:
        raise InvalidInput(
            f"no tag is left: {', '.join(left_out)} names a commit, and {uncommitted}",
            advice="Commit the changes, or use another tag, for example `--tag dev`.",
        )
    return kept, left_out


def target_of(ready: Prepared, client: RegistryClient, settings: Settings) -> Target:
    """Check that the registry answers, accepts a push, and allows the tags to move; return the target."""
    check_answers(ready.request.image, settings)
    return checked_target(
        ready.request.image,
        ready.names,
        ready.source.commit,
        client,
        settings,
        ancestry=ready.ancestry,
        force=ready.request.force_tags,
    )


def publish_here(request: PublishRequest, settings: Settings, *, all_platforms: bool) -> PublicationResult:
    """Build, index, push, join, verify and tag in this process; return the result.

    Raises the library's errors; tags move only after everything else has succeeded.
    """
    begun = time.monotonic()
    warn_of_unused_block(request.image, settings)
    with (
        prepared(request, settings, all_platforms=all_platforms) as (ready, folder),
        connect(request.image, settings) as client,
    ):
        target = retried(lambda: target_of(ready, client, settings))
        logger().info("%s accepts pushes; the tags will be %s", request.image, ", ".join(ready.names.tags))

        def push(work: Branch) -> PlatformImage:
            return local_branch.pushed_image(work, local_branch.imported_image(work, ready.credentials), client)

        images = tuple(push(work) for work in branches(ready, folder, settings))
        published, report = _release(ready, target, images, settings)
    result = PublicationResult.of(published, report, commit=ready.commit, seconds=time.monotonic() - begun)
    return with_reasons(result, ready)


def branches(ready: Prepared, folder: Path, settings: Settings) -> Iterator[Branch]:
    """Return the work for each platform, each in its own folder."""
    for platform in ready.request.platforms:
        place = folder / platform.slug
        place.mkdir()
        logger().info("%s:", platform)
        yield Branch(ready.request.branch(platform, ready.source), place, settings)


def with_reasons(result: PublicationResult, ready: Prepared) -> PublicationResult:
    """Add what was skipped, and why, to the result."""
    return result.model_copy(
        update={"uncommitted": ready.uncommitted, "left_out": ready.left_out, "not_built": ready.not_built}
    )


def _release(
    ready: Prepared, target: Target, images: tuple[PlatformImage, ...], settings: Settings
) -> tuple[PublishedImage, VerificationReport | None]:
    """Join the images, verify the result, and move the tags."""
    request = ready.request
    index = retried(lambda: push_joined(target, ready.annotations, images, request.platforms))
    if request.unless_same_as and (same := same_image(target, request.unless_same_as, index, images)):
        return same, None
    report = None
    if request.verify is not VerifyMode.OFF:
        report = retried(lambda: verified(target.client, target.image, index.digest, request.verify, request.platforms))
    if ready.commit is not None:
        parameters = request.statement_parameters()
        retried(lambda: attest_commit(target, ready.source, index, images, parameters=parameters))
    retried(lambda: sign_where_configured(target, index, settings))
    moved = retried(lambda: target.move_tags(index, images, confirm=lambda: None))
    published = published_image(target, index, images, moved, verified=report is not None)
    return published, report
