"""A publication in this process: what the flows do with workers, done with this machine's engine, without Prefect.

Platforms are built one after the other. Nothing keeps a publication on another machine from moving the same tags at the
same time, as the flows' concurrency limit does; each tag is read again right before it is written.
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
from soci_pipeline.publish.left_overs import REMOVERS
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
    """What is known before the first build: the commit or snapshot, the tags, and the platforms.

    ``uncommitted`` says why the source is no commit; ``left_out`` and ``not_built`` are those of the result.
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
        """The commit that is published; None for files that are in none."""
        return None if self.uncommitted else self.source.commit

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of the image index; files that are in no commit have its time alone."""
        found = index_annotations(self.source)
        return {CREATED: found[CREATED]} if self.uncommitted else found

    def ancestry(self) -> contextlib.AbstractContextManager[IsAncestor]:
        """Open the history of the source; files that are in no commit have none, so their order does not matter."""
        if self.uncommitted:
            return contextlib.nullcontext(lambda _older, _newer: None)
        return CommitOrder(self.source.url, lambda: self.credentials)()


def check_local(request: PublishRequest) -> None:
    """Raise `InvalidInput` for parameters that a publication without Prefect cannot follow."""
    if request.worker_wait is not None:
        raise InvalidInput(
            "--worker-wait only applies to a publication through Prefect", advice="Leave it out, or add --remote."
        )
    for place in (*request.build_secrets.values(), *filter(None, [request.source_credentials])):
        if not place.startswith("arn:"):
            # At once, and not after the build has begun.
            read_here(place)


def warn_of_unused_block(image: ImageReference, settings: Settings) -> None:
    """Log which setting a publication to ECR from this machine does not follow."""
    if settings.ecr.credentials_block and EcrRegistry.parse(image.registry) is not None:
        logger().warning(
            "SOCI_PIPELINE_ECR_CREDENTIALS_BLOCK=%s is not used: only a run through Prefect can read a block. ECR gets "
            "the AWS credentials of this machine.",
            settings.ecr.credentials_block,
        )


@contextlib.contextmanager
def prepared(
    request: PublishRequest, settings: Settings, *, all_platforms: bool, needs_tags: bool = True
) -> Iterator[tuple[Prepared, Path]]:
    """Resolve the source and choose tags and platforms, in a folder that is removed when the block is left.

    ``all_platforms`` says that the platforms were chosen: one that this machine lacks is not left out then.
    ``needs_tags`` rejects a source without a commit where only the commit's tags were asked for. Raises `InvalidInput`.
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
    """Resolve the source to a commit, and fill in the tags; raises as `soci_pipeline.git.source.resolve`."""
    files = request.required_files
    source = retried(lambda: resolve(request.source, request.ref, files=files, credentials=credentials))
    names = request.tag_names(source, datetime.now(UTC).date())
    return Prepared(request, source, credentials, None, names, {}, {})


def _buildable(
    request: PublishRequest, settings: Settings, *, all_platforms: bool
) -> tuple[PublishRequest, dict[str, str]]:
    """The request for the platforms that this machine can build, and why others are left out.

    Platforms that were chosen are kept where BuildKit builds: it needs an emulator for RUN steps alone.
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
        logger().info("RUN steps for %s need an emulator: %s", shown, HELP)
        return request, {}
    left = tuple(platform for platform in request.platforms if platform in possible)
    if all_platforms or not left:
        raise EngineUnavailable(f"--platform {shown}: {reason}", advice=f"Choose one of {names}; or {HELP}.")
    logger().info("%s is not built, since %s; to add it, %s", shown, reason, HELP)
    return request.model_copy(update={"platforms": left}), {str(platform): reason for platform in missing}


def _source(
    request: PublishRequest,
    tree: WorkTree | None,
    uncommitted: str | None,
    folder: Path,
    credentials: GitCredentials | None,
) -> tuple[PublishRequest, ResolvedSource]:
    """The request with paths of the source that is built, and that source."""
    if tree is None:
        files = request.required_files
        return request, retried(lambda: resolve(request.source, request.ref, files=files, credentials=credentials))
    if uncommitted is not None:
        logger().warning("publishing the files as they are: %s", uncommitted)
        if request.cache is not CacheMode.OFF:
            # Its name would be that of the snapshot's own repository, which no other run has.
            logger().warning("--cache %s is left out: files that are in no commit have no build cache", request.cache)
            request = request.model_copy(update={"cache": CacheMode.OFF})
        return request, snapshot_of(tree, folder / "snapshot.git", files=request.required_files)
    inside = request.model_copy(update={"context": below_top(tree, request.context)})
    return inside, commit_of(tree, request.ref, files=inside.required_files)


def _tags(
    request: PublishRequest, tree: WorkTree | None, uncommitted: str | None, *, needed: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The templates that may be filled, and those of the commit that are left out where the source is none."""
    if uncommitted is None:
        return request.tags, {}
    head = None if tree is None else tree.head
    left_out = {tag: uncommitted for tag in request.tags if names_commit(tag, head)}
    kept = tuple(tag for tag in request.tags if tag not in left_out)
    if not kept and needed:
        raise InvalidInput(
            f"no tag is left: {', '.join(left_out)} names a commit, and {uncommitted}",
            advice="Commit the changes, or name another tag, for example `--tag dev`.",
        )
    return kept, left_out


def target_of(ready: Prepared, client: RegistryClient, settings: Settings) -> Target:
    """Check that the registry answers, accepts a push, and lets the tags move; return the target."""
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
    """Build, index, push, join, verify and tag in this process; returns the result.

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
    """The work for each platform, each in its own folder."""
    for platform in ready.request.platforms:
        place = folder / platform.slug
        place.mkdir()
        logger().info("%s:", platform)
        yield Branch(ready.request.branch(platform, ready.source), place, settings)


def with_reasons(result: PublicationResult, ready: Prepared) -> PublicationResult:
    """The result with what was left out and why."""
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
