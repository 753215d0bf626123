"""Show what this machine can do, or what it can do with one image, and how to fix what is missing. Nothing is changed.

Without IMAGE, each check of the machine has a mark: `ok`; `LACKING`, which prevents every publication; `no`, which
prevents what the last line says (without an engine nothing can be built here, but prebuilt images can be published);
`-`, missing but there is an alternative. Only `LACKING` is a failure. With AWS credentials, account, role and region
are shown.

With IMAGE (registry/repository, with or without a tag): name, connection and TLS, login, pull, push, tags and deletion,
and for ECR the account, the role and its missing actions. Each is `ok`, `warn` or `fail`, with the cause and the next
step. To check push, it opens an upload and cancels it; some registries then create an empty repository. To check
deletion, it deletes something that does not exist.

Exit statuses: 0 all essential requirements are met; 7 an essential requirement is missing (Python, git, disk space,
valid settings). With IMAGE, the status of the first failed check: 3 not an image reference, or no such repository; 10
to 12 the registry rejects the request, does not answer, or requires other credentials or permissions.
"""

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.diagnosis import Check, diagnose, summary
from soci_pipeline.commands.registry_access import reference_of, registry_options, settings_for
from soci_pipeline.commands.target_diagnosis import LIMITS, Target
from soci_pipeline.errors import ExitCode
from soci_pipeline.publish.registries import connect
from soci_pipeline.registry.reference import ImageReference


@command(__doc__)
@click.argument("image", metavar="[IMAGE]", required=False, help="a repository for images, with or without a tag")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    return _machine() if arguments.image is None else _target(arguments, reference_of(arguments.image))


def _target(arguments: Arguments, image: ImageReference) -> CommandResult:
    settings = settings_for(arguments, image)
    with connect(image, settings, limits=LIMITS) as client:
        target = Target(image, settings, client)
        findings = list(target.findings())
        rest = [step.name for step in target.steps()[len(findings) :]]
    lines = [line for each in findings for line in _marked(each.mark, each.name, each.detail, each.advice)]
    lines += [f"not checked: {', '.join(rest)}"] if rest else []
    code = next((each.exit_code for each in findings if each.exit_code is not ExitCode.OK), ExitCode.OK)
    fields = [
        {"name": each.name, "mark": each.mark.value, "detail": each.detail, "advice": each.advice} for each in findings
    ]
    return CommandResult(
        json={"image": str(image), "ok": code is ExitCode.OK, "checks": fields, "not_checked": rest},
        text="\n".join(lines),
        exit_code=code,
    )


def _machine() -> CommandResult:
    checks = list(diagnose())
    said = summary(checks)
    fields = [
        {"name": each.name, "ok": each.ok, "mark": _mark(each), "detail": each.detail, "advice": each.advice}
        for each in checks
    ]
    failed = any(each.essential and not each.ok for each in checks)
    lines = [line for each in checks for line in _marked(_mark(each), each.name, each.detail, each.advice)]
    return CommandResult(
        json={"checks": fields, "summary": said},
        text="\n".join([*lines, said]),
        exit_code=ExitCode.TOOL_MISSING if failed else ExitCode.OK,
    )


def _mark(check: Check) -> str:
    if check.ok:
        return "ok"
    return "LACKING" if check.essential else "-" if check.has_alternative else "no"


def _marked(mark: str, name: str, detail: str, advice: str | None) -> list[str]:
    lines = [f"{mark:<8} {name:<21} {detail}"]
    if advice:
        lines.append(f"{'':<8} {'':<21} -> {advice}")
    return lines
