"""The result of a publication as a table for a terminal: digests, layers, tags, sizes and times."""

from collections.abc import Sequence

from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.records import PublicationResult
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.soci.reasons import Reason, explained
from soci_pipeline.text import sized


def digest_lines(index: Digest, images: Sequence[PlatformImage]) -> list[str]:
    """Return the digests of the image index, each platform's image and SOCI index, and its layers with their state."""
    lines = [f"  {'image index':<13} {index}"]
    for image in images:
        lines += _platform_lines(image)
    why = explained(layer.reason for image in images for layer in image.layers)
    return lines + (["", *(f"  {line}" for line in why)] if why else [])


def result_lines(result: PublicationResult) -> list[str]:
    """Return the whole table of a publication."""
    return [
        f"{_name(result)} {_headline(result)}",
        "",
        *digest_lines(result.index, result.platforms),
        *_minimum_lines(result.platforms),
        "",
        *(f"  {name + ':':<13} {value}" for name, value in _facts(result)),
    ]


def _minimum_lines(images: Sequence[PlatformImage]) -> list[str]:
    """Explain why nothing is indexed although every layer could be, and which option indexes it."""
    layers = [layer for image in images for layer in image.layers]
    if any(layer.ztoc for layer in layers) or all(layer.reason is not Reason.TOO_SMALL for layer in layers):
        return []
    return [
        "",
        "  No layer is indexed, because all are smaller than the minimum size (10 MiB by default).",
        "  To index them too, publish with `--soci min_layer_size=0`.",
    ]


def _name(result: PublicationResult) -> str:
    return f"{result.reference.partition('@')[0]}:{result.tags[0]}" if result.tags else result.reference


def _headline(result: PublicationResult) -> str:
    if result.layout is not None:
        return f"is in the OCI layout {result.layout}; it was not pushed."
    if result.same_as is not None:
        return f"is unchanged: the tag {result.same_as} has the same images, so nothing was published."
    return "is published."


def _facts(result: PublicationResult) -> list[tuple[str, str]]:
    pushed = result.layout is None
    facts = [("tags", ", ".join(result.tags) or "none")] if pushed else []
    facts += [("tag skipped", f"{tag}: {reason}") for tag, reason in result.left_out.items()]
    facts += [("not built", f"{platform}: {reason}") for platform, reason in result.not_built.items()]
    if result.commit is not None:
        facts.append(("commit", result.commit))
    if result.uncommitted is not None:
        facts.append(("no commit", result.uncommitted))
    facts += _of_the_registry(result) if pushed else []
    facts += [(str(image.platform), _times(image)) for image in result.platforms if image.timings]
    if result.run_url is not None:
        facts.append(("flow run", result.run_url))
    return [*facts, ("duration", f"{result.seconds:.1f} s")]


def _of_the_registry(result: PublicationResult) -> list[tuple[str, str]]:
    facts = [("verified", (result.checked or "yes") if result.verified else "no")]
    uploaded = sum(image.bytes_uploaded for image in result.platforms)
    skipped = sum(image.bytes_skipped for image in result.platforms)
    facts.append(("uploaded", f"{sized(uploaded)}; {sized(skipped)} already in the registry"))
    if 0 < result.lazy_bytes < result.total_bytes:
        facts.append(("lazy loading", f"{sized(result.lazy_bytes)} of {sized(result.total_bytes)} before the mount"))
    return facts


def _times(image: PlatformImage) -> str:
    return ", ".join(f"{step} {seconds:.1f} s" for step, seconds in image.timings.items())


def _platform_lines(image: PlatformImage) -> list[str]:
    lines = [f"  {image.platform!s:<13} {image.manifest.digest}"]
    if image.soci_index is not None:
        lines.append(f"  {'  SOCI index':<13} {image.soci_index.digest}")
    for layer in image.layers:
        state = "indexed" if layer.ztoc else f"not indexed: {layer.reason.value if layer.reason else 'unknown'}"
        lines.append(f"  {'  layer':<13} {layer.digest}  {sized(layer.size):>10}  {state}")
    return lines
