"""What can be known of the target before anything is built: the registry, the credentials, and the tags."""

from datetime import UTC, datetime

from prefect import task

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.publish.registries import check_push, prepare
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.signature import configured_signer
from soci_pipeline.publish.tag_names import TagFields, render_tags
from soci_pipeline.publish.tags import check_tags_before_build
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.settings import Settings
from tasks.aws import ecr_session
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.source import ancestry


@task(name="check target", task_run_name="check target", **STEP)
def check_target(
    request: PublishRequest, source: ResolvedSource, client: RegistryClient, settings: Settings
) -> tuple[tuple[str, ...], TagMutability]:
    """The rendered tags and the repository's rule for them, once it is known that the registry lets this run push."""
    with run_log() as log:
        fields = TagFields(sha=source.commit, ref=source.ref, date=datetime.now(UTC).date(), version=source.version)
        tags = render_tags(request.tags, fields)
        # Before anything is built: without its token, the signature would fail at the end.
        configured_signer(settings.publish)
        rule = prepare(request.image, settings, aws=ecr_session(settings))
        check_push(client, request.image.repository)
        with ancestry(request) as ask:
            check_tags_before_build(
                client,
                request.image.repository,
                tags,
                revision=source.commit,
                mutability=rule,
                ancestry=ask,
                force=request.force_tags,
            )
        log.info("%s takes pushes; the tags will be %s", request.image, ", ".join(tags))
        return tags, rule
