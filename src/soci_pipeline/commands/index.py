"""Index an image that is in a registry already, for all its platforms, without pulling it to this machine.

Only layers that qualify and have no known zTOC are fetched; they are indexed as they stream by and not kept. The result
is verified, and then the tag moves to it; with --suffix the tag stays, and <tag><suffix> is written. An image that is
indexed with these settings is left alone. --dry-run says what would be fetched and saved.

Exit statuses: 0 indexed, or nothing to do; 3 a reference that is no image, or an image with parts missing; 5 a damaged
layer; 10 to 12 the registry refused, is out of reach, or wants other credentials; 17 the result was not readable, the
tag stayed; 18 the tag may not move, or moved meanwhile.
"""

from typing import Any

import click

from soci_pipeline.commands import CommandResult, soci_options
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.numbers import whole
from soci_pipeline.commands.registry_access import client_for, image_of, registry_options
from soci_pipeline.publish.registries import prepare
from soci_pipeline.reindex.index import IndexedImage, index_existing
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.settings import Settings
from soci_pipeline.soci.reasons import explained
from soci_pipeline.soci.ztoc.store import CacheFolder
from soci_pipeline.text import sized
from soci_pipeline.verification.mode import VerifyMode


@command(__doc__)
@click.argument("reference", metavar="REFERENCE", help="an image index or image, by tag or digest")
@click.option(
    "--suffix",
    default="",
    show_default=False,
    metavar="S",
    help="write <tag><S> instead of moving the tag, as in --suffix=-soci",
)
@click.option("--dry-run", is_flag=True, help="fetch and write nothing; say what would be done")
@soci_options.options
@click.option("--reuse-from", metavar="TAG", help="use the zTOCs of this tag's layers again")
@click.option(
    "--verify",
    type=click.Choice([mode.value for mode in VerifyMode]),
    default=VerifyMode.SAMPLE.value,
    help="what is read through before the tag moves: some spans of each layer, everything, or nothing",
)
@click.option("--jobs", type=whole(least=1), default=1, metavar="N", help="layers indexed at once")
@click.option("--no-cache", is_flag=True, help="do not look for zTOCs in this machine's cache")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    reference, _ = image_of(arguments.reference)
    machine = Settings.from_environment()
    soci = soci_options.options_of(arguments, reuse_from=arguments.reuse_from)
    with client_for(arguments, reference) as client:
        settings = IndexSettings(
            soci=soci,
            suffix=arguments.suffix,
            mutability=prepare(reference, machine),
            verify=VerifyMode(arguments.verify),
            jobs=arguments.jobs,
            dry_run=arguments.dry_run,
        )
        store = None if arguments.no_cache else CacheFolder(machine.work.ztoc_cache)
        found = index_existing(client, reference, settings, ztocs=store)
    return CommandResult(json=_json(found), text=_text(found))


def _json(found: IndexedImage) -> dict[str, Any]:
    return {
        "index": str(found.index),
        "changed": found.changed,
        "up_to_date": found.up_to_date,
        "platforms": [image.summary() for image in found.platforms],
        "tags": [record.tag for record in found.tags],
        "bytes_fetched": found.bytes_fetched,
        "bytes_to_fetch": found.bytes_to_fetch,
        "lazy_layer_bytes": found.lazy_layer_bytes,
        "dry_run": found.dry_run,
    }


def _text(found: IndexedImage) -> str:
    """What was or would be done, and each layer that gets no zTOC with its reason."""
    left_out = (
        f"  {image.platform} layer {layer.digest} ({sized(layer.size)}): not indexed: {layer.reason}"
        for image in found.platforms
        for layer in image.layers
        if layer.reason
    )
    why = explained(layer.reason for image in found.platforms for layer in image.layers)
    return "\n".join([_headline(found), *left_out, *why])


def _headline(found: IndexedImage) -> str:
    if found.up_to_date and found.lazy_layer_bytes:
        return f"{found.reference} is indexed with these settings already, nothing to do: {found.index}"
    if found.dry_run and not found.lazy_layer_bytes:
        return f"{found.reference}: no layer would get a zTOC: none qualifies, for example by --min-layer-size"
    if found.dry_run and not found.bytes_to_fetch:
        return (
            f"{found.reference}: no layer would be fetched, since their zTOCs are known; "
            f"{sized(found.lazy_layer_bytes)} of them need not be there before the mount"
        )
    if found.dry_run:
        return (
            f"{found.reference}: {sized(found.bytes_to_fetch)} of layers would be fetched; "
            f"{sized(found.lazy_layer_bytes)} of them would not have to be there before the mount"
        )
    if not found.changed:
        return f"{found.reference} stays as it is, since no layer gets a zTOC that it lacks: {found.index}"
    tags = ", ".join(record.tag for record in found.tags) or "no tag"
    return f"{found.reference}: indexed as {found.index} ({tags}), {sized(found.bytes_fetched)} fetched"
