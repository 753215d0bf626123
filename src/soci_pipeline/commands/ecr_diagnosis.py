"""Checks of a target on ECR; the first call imports boto3."""

from functools import cached_property
from typing import TYPE_CHECKING

from soci_pipeline.aws import ecr_actions
from soci_pipeline.aws.client import AwsDenied, session
from soci_pipeline.aws.ecr import EcrCredentials, EcrRegistry
from soci_pipeline.aws.ecr_access import Access, find_access
from soci_pipeline.aws.identity import Identity, caller
from soci_pipeline.aws.partition import partition_of
from soci_pipeline.aws.repository import ensure_repository
from soci_pipeline.commands.finding import CheckResult, Mark
from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import MutabilityMode, TagMutability
from soci_pipeline.settings import Settings

if TYPE_CHECKING:
    import boto3


_CONTROL = "Only the machine that runs publish-image requires it."


def describe_caller(found: Identity) -> str:
    """Format account, role and region in one line."""
    who = f"role {found.role}" if found.role else found.arn
    return f"account {found.account}, {who}, region {found.region}"


def check_account() -> CheckResult:
    """Return account, role and region of this machine's credentials."""
    return CheckResult(describe_caller(caller()))


def check_ecr() -> CheckResult:
    """Check whether ECR answers in this machine's region."""
    aws = session()
    found = caller(aws)
    EcrCredentials(aws).credentials_for(
        f"{found.account}.dkr.ecr.{found.region}.{partition_of(found.region).dns_suffix}"
    )
    return CheckResult(f"answers in {found.region}; `soci-pipeline doctor IMAGE` shows which permissions are missing")


class EcrTarget:
    """The checks of one repository of a private ECR registry; later checks use the results of earlier ones."""

    def __init__(self, place: EcrRegistry, image: ImageReference, settings: Settings) -> None:
        self._place = place
        self._image = image
        self._may_create = settings.registry.create_repository
        self._mutability: TagMutability | None = None

    def check_account(self) -> CheckResult:
        """Check the caller's identity, and whether the registry belongs to the caller's account."""
        detail = describe_caller(self._caller)
        if self._caller.account == self._place.account:
            return CheckResult(detail)
        advice = "Its repository policy must allow this account."
        return CheckResult(f"{detail}; the registry belongs to account {self._place.account}", advice, Mark.WARN)

    def check_token(self) -> CheckResult:
        """Check whether ECR returns a login token."""
        EcrCredentials(self._session).credentials_for(self._place.host)
        return CheckResult(f"ECR answers in {self._place.region} and gives a login token")

    def check_repository(self) -> CheckResult:
        """Check whether the repository exists, and read its tag mutability."""
        try:
            found = ensure_repository(self._place.host, self._image.repository, aws=self._session)
        except AwsDenied as error:
            return CheckResult(error.reason, f"{error.advice} {_CONTROL}", Mark.WARN)
        except InvalidInput as error:
            if not self._may_create or "does not exist" not in error.reason:
                raise
            return CheckResult(
                f"{self._image.repository} does not exist; the first publication creates it", None, Mark.WARN
            )
        self._mutability = found.mutability
        return CheckResult(found.arn)

    def check_tags(self) -> CheckResult:
        """Check whether tags can move."""
        rule, tag = self._mutability, self._image.tag
        if rule is None:
            return CheckResult("unknown: cannot read the repository")
        text = rule.mode.value + (f", except {', '.join(rule.filters)}" if rule.filters else "")
        if tag and not rule.allows_moving(tag):
            return CheckResult(
                f"{text}: {tag} cannot move", "Use a new tag for each publication, such as {short_sha}.", Mark.WARN
            )
        if rule.mode is MutabilityMode.IMMUTABLE:
            return CheckResult(f"{text}: use tags that name a commit or version, such as {{short_sha}}")
        return CheckResult(text)

    def check_deletion(self) -> CheckResult:
        """Check whether `prune` can list and delete."""
        missing = [name for name in self._access.missing if name in ecr_actions.PRUNE]
        if not missing:
            return CheckResult("prune can list and delete images")
        return CheckResult(
            f"prune lacks permission for {_names(missing)}",
            _advice(missing) + " Publishing does not require it.",
            Mark.WARN,
        )

    def check_actions(self) -> CheckResult:
        """Check which actions for publishing the caller lacks."""
        needed = (*ecr_actions.LOGIN, *ecr_actions.PULL, *ecr_actions.PUSH)
        missing = [name for name in self._access.missing if name in needed]
        if missing:
            return CheckResult(f"missing: {_names(missing)}", _advice(missing), Mark.FAIL)
        missing = [name for name in self._access.missing if name in (*ecr_actions.CHECK, *ecr_actions.CREATE)]
        if missing:
            return CheckResult(f"missing: {_names(missing)}", f"{_advice(missing)} {_CONTROL}", Mark.WARN)
        tried = f"{len(self._access.allowed)} actions are allowed"
        if not self._access.unknown:
            return CheckResult(tried)
        return CheckResult(f"{tried}; {_names(self._access.unknown)} cannot be checked without writing")

    @cached_property
    def _session(self) -> "boto3.Session":
        return session()

    @cached_property
    def _caller(self) -> Identity:
        return caller(self._session, region=self._place.region)

    @cached_property
    def _access(self) -> Access:
        wanted = [*ecr_actions.LOGIN, *ecr_actions.PULL, *ecr_actions.PUSH, *ecr_actions.CHECK, *ecr_actions.PRUNE]
        wanted += ecr_actions.CREATE if self._may_create else ()
        return find_access(self._place, self._image.repository, self._caller, wanted, aws=self._session)


def _names(actions: "list[str] | tuple[str, ...]") -> str:
    return ", ".join(f"ecr:{name}" for name in actions)


def _advice(missing: list[str]) -> str:
    return f"Add {_names(missing)} on the repository to the policy of the role."
