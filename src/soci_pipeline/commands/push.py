"""Push an OCI layout to a registry: the largest blobs first, the tag last.

The index.json of LAYOUT lists one image or image index, or several of which --ref selects one. It is pushed by digest,
together with what refers to it in the layout (such as a v1 SOCI index); if REFERENCE has a tag, the tag moves when
everything else is there. Content that the registry already has is not sent again. Credentials:
SOCI_PIPELINE_REGISTRY_USERNAME and SOCI_PIPELINE_REGISTRY_PASSWORD for the registry in SOCI_PIPELINE_REGISTRY, or
Docker's configuration.

With --platform, only the images for these platforms are pushed, under a new image index without the others, their
attestations and SOCI indexes. An index that lists a platform which was not saved can only be pushed this way. LAYOUT is
not changed.

Exit statuses: 0 pushed; 3 the layout or reference is not valid, several images without --ref, or no image for a
platform; 5 the layout is damaged, or lists a platform that it does not contain; 6 a link or special file is in place of
a blob; 10 to 12 the registry rejects the request, does not answer, or requires other credentials; 18 the tag must not
move; 23 a deadline was exceeded.
"""

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.commands.numbers import whole
from soci_pipeline.commands.platforms import platforms_of
from soci_pipeline.commands.registry_access import client_for, reference_of, registry_options
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.layout_choice import choose_roots, listed
from soci_pipeline.oci.media_types import IMAGE_INDEXES
from soci_pipeline.oci.platform_selection import check_complete, select_platforms
from soci_pipeline.registry.push import push_graph
from soci_pipeline.soci.index.source_images import check_images
from soci_pipeline.text import sized


@command(__doc__)
@click.argument("layout", type=FILE_PATH, metavar="LAYOUT", help="the folder of an OCI image layout")
@click.argument("reference", metavar="REFERENCE", help="the repository, with a tag if one is to be moved")
@click.option("--jobs", type=whole(least=1), default=4, metavar="N", help="number of blobs uploaded in parallel")
@click.option(
    "--ref",
    metavar="NAME",
    help="if LAYOUT contains several images, use this one: its name in index.json, or its digest",
)
@click.option("--platform", multiple=True, metavar="OS/ARCH", help="push only this platform; may be repeated")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    reference = reference_of(arguments.reference)
    layout, root = _source(arguments)
    if reference.digest not in (None, root.digest):
        raise InvalidInput(f"the layout contains {root.digest}, but the reference names {reference.digest}")
    with client_for(arguments, reference) as client:
        report = push_graph(
            layout,
            root,
            client,
            reference.repository,
            tag=reference.tag,
            extra_roots=layout.referrers(root),
            jobs=arguments.jobs,
        )
    kind = "index" if root.media_type in IMAGE_INDEXES else "manifest"
    answer = {
        kind: str(root.digest),
        "reference": f"{reference.name}@{root.digest}",
        "tags": [reference.tag] if reference.tag else [],
        "bytes_uploaded": report.bytes_uploaded,
        "bytes_skipped": report.bytes_skipped,
    }
    tagged = f", tagged {reference.tag}" if reference.tag else ""
    moved = f"{sized(report.bytes_uploaded)} uploaded, {sized(report.bytes_skipped)} already there"
    return CommandResult(json=answer, text=f"{answer['reference']}{tagged}  {moved}")


def _source(arguments: Arguments) -> tuple[Layout, Descriptor]:
    """Return the layout and the root to push; everything that would be sent exists."""
    layout = Layout.open(arguments.layout)
    roots = choose_roots(layout.roots(), arguments.ref, f"layout {layout.path}")
    if platforms := platforms_of(arguments.platform):
        layout = select_platforms(layout, roots, platforms)
        roots = layout.roots()
    if len(roots) > 1:
        raise InvalidInput(
            f"layout {layout.path} lists {len(roots)} images, but a push takes one:\n{listed(roots)}",
            advice="Choose one with --ref NAME, or by its digest.",
        )
    root = roots[0] if roots else layout.root()
    check_complete(layout, [root])
    check_images(layout, root)
    return layout, root
