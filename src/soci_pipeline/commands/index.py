"""Index an image that is already in a registry, for all its platforms, without pulling it to this machine.

Only layers that qualify and have no known zTOC are downloaded; they are indexed while streaming and not stored. The
result is verified, and then the tag moves to it; with --suffix the tag stays, and <tag><suffix> is written. An image
that is already indexed with these settings is not changed. --dry-run shows what would be downloaded and saved.

Exit statuses: 0 indexed, or nothing to do; 3 not a reference to an image, or an incomplete image; 5 a damaged layer; 10
to 12 the registry rejects the request, does not answer, or requires other credentials; 17 the result failed
verification, and the tag did not move; 18 the tag must not move, or moved in the meantime.
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
@click.option("--dry-run", is_flag=True, help="fetch and write nothing; show what would be done")
@soci_options.options
@click.option("--reuse-from", metavar="TAG", help="reuse the zTOCs of this tag's layers")
@click.option(
    "--verify",
    type=click.Choice([mode.value for mode in VerifyMode]),
    default=VerifyMode.SAMPLE.value,
    help="what to read back before the tag moves: some spans of each layer, everything, or nothing",
)
@click.option("--jobs", type=whole(least=1), default=1, metavar="N", help="number of layers indexed in parallel")
@click.option("--no-cache", is_flag=True, help="do not use the zTOC cache of this machine")
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
    """Describe what was or would be done, and list each layer without a zTOC with its reason."""
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
        return f"{found.reference} is already indexed with these settings; nothing to do: {found.index}"
    if found.dry_run and not found.lazy_layer_bytes:
        return f"{found.reference}: no layer would get a zTOC: none qualifies, for example because of --min-layer-size"
    if found.dry_run and not found.bytes_to_fetch:
        return (
            f"{found.reference}: no layer would be fetched, because their zTOCs are known; "
            f"{sized(found.lazy_layer_bytes)} of them are not needed before the mount"
        )
    if found.dry_run:
        return (
            f"{found.reference}: {sized(found.bytes_to_fetch)} of layers would be fetched; "
            f"{sized(found.lazy_layer_bytes)} of them would not be needed before the mount"
        )
    if not found.changed:
        return f"{found.reference} is unchanged, because no layer needs a new zTOC: {found.index}"
    tags = ", ".join(record.tag for record in found.tags) or "no tag"
    return f"{found.reference}: indexed as {found.index} ({tags}), {sized(found.bytes_fetched)} fetched"
