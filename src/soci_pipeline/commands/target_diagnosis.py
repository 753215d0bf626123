"""Checks of one target from this machine, one after the other; none leaves anything behind.

A failed check without which the others make no sense (unknown host, no login) ends the list.
"""

import os
from collections.abc import Iterator, Sequence

import httpx

from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.commands.ecr_diagnosis import EcrTarget
from soci_pipeline.commands.finding import CheckResult, Finding, Mark, Step
from soci_pipeline.commands.registry_connection import check_connection, check_name
from soci_pipeline.errors import CredentialsRefused, ExitCode, SociPipelineError
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.registries import connection_to
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused, ManifestUnknown, RegistryError
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.settings import Settings
from soci_pipeline.text import counted

LIMITS = ClientSettings(attempts=2, deadline=30.0, backoff_cap=2.0, read_timeout=20.0, settle_time=0)
"""Timeouts for the client of these checks: a person is waiting."""
_NO_REPOSITORY = "The first push creates it if the registry supports that; otherwise create it there."
_ROLE = (
    "Check the permissions of this machine's role (AWS_PROFILE, the instance or the task); ECR uses its token, not a "
    "stored login."
)


class Target:
    """One repository, optionally with a tag or digest, as this machine reaches it."""

    def __init__(self, image: ImageReference, settings: Settings, client: RegistryClient) -> None:
        self._image = image
        self._settings = settings
        self._client = client
        place = EcrRegistry.parse(image.registry)
        self._is_ecr = place is not None
        self._is_new = False
        self._ecr = None if place is None or place.account is None else EcrTarget(place, image, settings)

    def steps(self) -> Sequence[Step]:
        """Return the checks in their order."""
        url, ca_file = self._client.url, self._settings.registry.ca_file
        way = (
            Step("name", lambda: check_name(url), blocks=True),
            Step("connection", lambda: check_connection(url, ca_file), blocks=True),
        )
        login = Step("login", self._check_login, blocks=True)
        use = Step("pull", self._check_pull), Step("push", self._check_push)
        if self._ecr is None:
            return (*way, login, *use, Step("tags", self._check_tags), Step("deletion", self._check_deletion))
        return (
            *way,
            Step("AWS account", self._ecr.check_account, blocks=True),
            Step("ECR", self._ecr.check_token, blocks=True),
            login,
            Step("repository", self._ecr.check_repository, blocks=True),
            *use,
            Step("actions", self._ecr.check_actions),
            Step("tags", self._ecr.check_tags),
            Step("deletion", self._ecr.check_deletion),
        )

    def findings(self) -> Iterator[Finding]:
        """Run the checks; stop after the first failed one that blocks the others."""
        for step in self.steps():
            finding = self._run(step)
            yield finding
            if step.blocks and finding.mark is Mark.FAIL:
                return

    def _run(self, step: Step) -> Finding:
        try:
            said = step.look()
        except SociPipelineError as error:
            return Finding(step.name, Mark.FAIL, error.reason.splitlines()[0], self._advice(error), error.exit_code)
        code = ExitCode.CREDENTIALS if said.mark is Mark.FAIL else ExitCode.OK
        return Finding(step.name, said.mark, said.detail, said.advice, code)

    def _advice(self, error: SociPipelineError) -> str | None:
        # The default advice is for all registries and starts with `docker login`.
        is_general = isinstance(error, CredentialsRefused) and error.advice == CredentialsRefused.default_advice
        return _ROLE if self._is_ecr and is_general else error.advice

    def _check_login(self) -> CheckResult:
        provider = connection_to(self._image, self._settings).credentials
        login = provider.credentials_for(self._image.registry) if provider is not None else None
        try:
            self._client.ping()
        except AccessRefused as error:
            # A login may be limited to one repository; the next checks show whether it is enough.
            if error.status != httpx.codes.FORBIDDEN:
                raise
        return CheckResult(
            "the registry answers, with the login of this machine" if login else "the registry answers; no login"
        )

    def _check_pull(self) -> CheckResult:
        repository, target = self._image.repository, self._image.target
        try:
            if target is None:
                return CheckResult(
                    f"allowed: {repository} has {counted(len(self._client.tags.list(repository)), 'tag')}"
                )
            found = self._client.manifests.head(repository, target)
        except ManifestUnknown:
            self._is_new = True
            return CheckResult(f"the repository {repository} does not exist yet", _NO_REPOSITORY, Mark.WARN)
        if found is None:
            return CheckResult(f"{repository} has no {target} yet")
        return CheckResult(f"allowed: {target} is {found.digest}")

    def _check_push(self) -> CheckResult:
        is_cancelled = self._client.blobs.probe_upload(self._image.repository)
        made = (
            "; a registry that creates repositories with the first upload keeps the empty one" if self._is_new else ""
        )
        if is_cancelled:
            return CheckResult(f"allowed: an upload was opened and cancelled{made}")
        return CheckResult(
            f"allowed: an upload was opened; the registry does not cancel it, so it expires by itself{made}"
        )

    def _check_tags(self) -> CheckResult:
        return CheckResult("assumed to be mutable: only ECR has a rule that can be read")

    def _check_deletion(self) -> CheckResult:
        try:
            self._client.manifests.delete(self._image.repository, Digest.of(os.urandom(32)))
        except ManifestUnknown:
            return CheckResult("allowed, as far as a test with a missing manifest shows")
        except AccessRefused as error:
            return CheckResult(error.reason, f"{self._advice(error)} Only prune requires it.", Mark.WARN)
        except RegistryError as error:
            advice = "Enable deletion in the registry if you want to use prune; publishing does not require it."
            return CheckResult(f"the registry does not allow deletion: {error.reason}", advice, Mark.WARN)
        return CheckResult("allowed")
