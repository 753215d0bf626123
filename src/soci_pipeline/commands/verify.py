"""Read a published image through its SOCI indexes, and list everything that is wrong.

Without --all: every manifest, config, annotation and zTOC, and some spans of each indexed layer. With --all: every byte
of every layer, compared with its zTOC, checkpoints and diff id. It also shows how many bytes a machine must download
before the container can start, lazily and with a full pull.

Exit statuses: 0 OK: verified; 3 not a reference to an image; 10 to 12 the registry rejects the request, does not
answer, or requires other credentials; 17 something is wrong, and every fault is listed.
"""

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.numbers import whole
from soci_pipeline.commands.registry_access import client_for, image_in_registry, registry_options
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.text import counted, sized
from soci_pipeline.verification.lazy_bytes import PlatformCost
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport, verify


@command(__doc__)
@click.argument("reference", metavar="REFERENCE", help="an image index or image, by tag or digest")
@click.option("--all", is_flag=True, help="read every layer completely, not only some spans")
@click.option("--platform", multiple=True, metavar="P", help="a platform that must be present; may be repeated")
@click.option("--jobs", type=whole(least=1), default=2, metavar="N", help="number of layers read in parallel")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    reference, target = image_in_registry(arguments, arguments.reference)
    platforms = [Platform.parse(text) for text in arguments.platform] or None
    with client_for(arguments, reference) as client:
        report = verify(
            client,
            reference.repository,
            target,
            mode=VerifyMode.ALL if arguments.all else VerifyMode.SAMPLE,
            platforms=platforms,
            jobs=arguments.jobs,
        )
    return CommandResult(
        json=report.model_dump(mode="json"),
        text=_text(reference, report),
        exit_code=ExitCode.OK if report.ok else ExitCode.VERIFICATION_FAILED,
    )


def _text(reference: ImageReference, report: VerificationReport) -> str:
    lines = [f"{reference}: {'OK: verified' if report.ok else counted(len(report.findings), 'fault')}"]
    lines += [f"  - {finding}" for finding in report.findings]
    lines.append(f"checked: {report.checked_summary()}")
    lines += [f"{each.platform}: {_before_start(each)}" for each in report.platforms]
    return "\n".join(lines)


def _before_start(platform: PlatformCost) -> str:
    lazy, whole = sized(platform.lazy_bytes), sized(platform.total_bytes)
    if platform.lazy_bytes == platform.total_bytes:
        return f"no layer is indexed; all {whole} are downloaded before the start"
    if platform.lazy_bytes > platform.total_bytes:
        return f"{lazy} to fetch before a lazy start, {whole} without: the index is larger than what it saves"
    return f"{lazy} to fetch before a lazy start, {whole} without"
