"""Index every layer that qualifies of an OCI layout or archive, and write an OCI layout.

The flags are those of `soci convert`. All platforms are indexed unless --platform selects some. With --platform,
platforms that SOURCE lists but does not contain completely are dropped; with --drop-others, all other platforms are. If
SOURCE contains two different images for one platform, --ref selects one. A layer that cannot be indexed is skipped with
its reason; an image without indexed layers is written unchanged. If several layers contain a file to prefetch, the
topmost indexed layer is used.

Exit statuses: 0 written; 3 SOURCE, --platform, --ref or the list of files is not valid, or DESTINATION exists; 4
nothing was indexed and --require-index is set; 5 a blob is damaged; 6 a layer exceeds a limit, the archive is hostile,
or a link or special file is in place of a blob.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import click

from soci_pipeline.archive.unpack import unpacked
from soci_pipeline.commands import CommandResult, prefetch_files, soci_options
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.commands.convert_destination import as_address, check_destination, put_in_place, scratch_beside
from soci_pipeline.commands.numbers import whole
from soci_pipeline.commands.platforms import platforms_of
from soci_pipeline.commands.signals import ending_on_signals
from soci_pipeline.commands.ztoc import limit_options, limits_of
from soci_pipeline.errors import ExitCode, InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.oci.layout import Layout
from soci_pipeline.soci.index.convert import Conversion, convert
from soci_pipeline.soci.index.records import IndexVersion
from soci_pipeline.soci.reasons import explained
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.soci.ztoc.store import CacheFolder
from soci_pipeline.text import sized

_Value = TypeVar("_Value")


def _mutually_exclusive(context: click.Context, option: click.Parameter, value: _Value) -> _Value:
    """Reject ``--platform`` together with ``--all-platforms``, in either order."""
    other = {"platform": "all_platforms", "all_platforms": "platform"}[option.name or ""]
    if value and context.params.get(other):
        raise click.UsageError("--platform and --all-platforms cannot be used together", context)
    return value


@command(__doc__)
@click.argument("source", type=FILE_PATH, metavar="SOURCE", help="an OCI layout: a folder or a tar of one")
@click.argument("destination", type=FILE_PATH, metavar="DESTINATION", help="the folder of the new OCI layout")
@soci_options.options
@click.option(
    "--platform",
    multiple=True,
    metavar="OS/ARCH",
    callback=_mutually_exclusive,
    help="index this platform; may be repeated",
)
@click.option(
    "--all-platforms", is_flag=True, callback=_mutually_exclusive, help="index all platforms, which is the default"
)
@click.option(
    "--drop-others",
    is_flag=True,
    help="with --platform, drop the other platforms from the result instead of keeping them unchanged",
)
@click.option(
    "--ref",
    metavar="NAME",
    help="if SOURCE contains several images, use this one: its name in index.json, or its digest",
)
@click.option(
    "--optimizations", multiple=True, type=click.Choice(["xattr"]), help="mark layers without extended attributes"
)
@prefetch_files.options
@click.option("--build-tool", default=BUILD_TOOL, metavar="ID", help="the build tool that the zTOCs name")
@click.option(
    "--index-version",
    type=click.Choice([version.value for version in IndexVersion]),
    default=IndexVersion.V2.value,
    help="of the SOCI index",
)
@click.option("--jobs", type=whole(least=1), default=2, metavar="N", help="number of layers indexed in parallel")
@click.option("--cache", type=FILE_PATH, metavar="FOLDER", help="read zTOCs from this cache folder, and store new ones")
@click.option("--require-index", is_flag=True, help="fail if no layer can be indexed")
@click.option(
    "--force", is_flag=True, help="replace DESTINATION, which must be empty or an OCI layout and nothing else"
)
@limit_options
def run(arguments: Arguments) -> CommandResult:
    """Convert the image and describe the result."""
    options = soci_options.options_of(arguments, version=arguments.index_version)
    platforms = platforms_of(arguments.platform) or None
    if arguments.drop_others and platforms is None:
        raise InvalidInput("--drop-others requires --platform", advice="Name the platforms to keep with --platform.")
    prefetch = prefetch_files.prefetch_files_of(arguments)
    check_destination(arguments.source, arguments.destination, cache=arguments.cache, force=arguments.force)
    # If the name is a link, replace the folder that it points to, not the link.
    destination: Path = arguments.destination.resolve()
    with (
        ending_on_signals(),
        scratch_beside(destination) as scratch,
        _source(arguments.source, scratch, arguments.ref) as source,
    ):
        result = convert(
            source,
            scratch / "result",
            options=options,
            build_tool=arguments.build_tool,
            platforms=platforms,
            drop_others=arguments.drop_others,
            ref=arguments.ref,
            disable_xattrs="xattr" in arguments.optimizations,
            prefetch_files=prefetch,
            jobs=arguments.jobs,
            ztocs=CacheFolder(arguments.cache) if arguments.cache else None,
            limits=limits_of(arguments),
        )
        put_in_place(scratch, destination, force=arguments.force)
    indexed = any(layer.ztoc for image in result.images for layer in image.layers)
    failed = arguments.require_index and not indexed
    if failed:
        logger().error(
            "no layer was indexed, but --require-index is set; %s is the unchanged image\n"
            "next: fix the reasons above or lower --min-layer-size, and run again with --force",
            destination,
        )
    return CommandResult(
        json=describe(result), text=_text(result), exit_code=ExitCode.NOT_INDEXABLE if failed else ExitCode.OK
    )


def describe(result: Conversion) -> dict[str, object]:
    """Return the JSON result: the image index, and each platform's manifest, SOCI index and layers with reasons."""
    return {"index": str(result.root.digest), "platforms": [image.summary() for image in result.images]}


@contextlib.contextmanager
def _source(path: Path, scratch: Path, ref: str | None) -> Iterator[Layout]:
    if not path.exists():
        raise _no_source(path)
    if path.is_dir():
        yield Layout.open(path)
    else:
        yield unpacked(path, scratch / "source", ref=ref)


def _no_source(path: Path) -> InvalidInput:
    """Suggest what the user probably intended: a URL, or an image in a registry."""
    advice = "Use a folder or a tar archive with an OCI layout."
    host = path.parts[0].removesuffix(":") if len(path.parts) > 1 else ""
    if host in {"http", "https", "docker", "oci"}:
        advice = "Download it first: this command only reads files."
    elif "." in host.strip(".") or ":" in host:
        advice = f"To index an image in a registry, run `soci-pipeline index {path}`."
    return InvalidInput(f"there is no {as_address(path)}", advice=advice)


def _text(result: Conversion) -> str:
    lines = [f"image index {result.root.digest}"]
    for image in result.images:
        soci = "no SOCI index" if image.soci_index is None else f"SOCI index {image.soci_index.digest}"
        lines.append(f"{image.platform}: manifest {image.manifest.digest}, {soci}")
        lines += (
            f"  layer {layer.digest} ({sized(layer.size)}): "
            + (f"zTOC {layer.ztoc}" if layer.ztoc else f"not indexed: {layer.reason}")
            for layer in image.layers
        )
    lines += explained(layer.reason for image in result.images for layer in image.layers)
    return "\n".join(lines)
