"""Find the spans to prefetch before a container starts: those of given files, as a container sees them.

As in the reference, a file is taken from the topmost indexed layer that contains its path. Layers without a zTOC are
ignored, because they are pulled whole. A file that a higher indexed layer deletes or replaces with another type of file
is not prefetched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from soci_pipeline.soci.index.document import SpanRange
from soci_pipeline.soci.tar import entries as kinds
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.tar.tree import LayerTree
from soci_pipeline.soci.ztoc.codec import Ztoc


@dataclass(frozen=True, slots=True)
class Prefetch:
    """The spans to prefetch for each layer, from the lowest to the topmost; ``files`` are the paths that were found."""

    spans: tuple[tuple[SpanRange, ...], ...]
    files: frozenset[str]


def prefetch_spans(layers: Sequence[Ztoc | None], paths: Iterable[str]) -> Prefetch:
    """Return the spans that contain the regular files at ``paths``, ascending and without overlap in each layer.

    ``layers`` are those of one image from the lowest to the topmost, with None for a layer without a zTOC. A path may
    begin with ``/`` or ``./``. It is resolved as in a container: the last file of that name wins, hard links are
    followed, and a symbolic link in the last component is not.
    """
    tree = LayerTree(())
    layer_of: dict[int, int] = {}
    for number, toc in enumerate(layers):
        if toc is not None:
            tree.merge_over(LayerTree(toc.entries))
            layer_of.update((id(entry), number) for entry in toc.entries)
    nodes = {path: tree.find(path.encode(errors="surrogateescape")) for path in paths}
    files = {path: node for path, node in nodes.items() if isinstance(node, Entry) and node.kind == kinds.REGULAR}
    by_layer: list[set[int]] = [set() for _ in layers]
    for file in files.values():
        number = layer_of[id(file)]
        if (toc := layers[number]) is not None:
            by_layer[number].update(toc.spans_of(file.offset, file.offset + file.size))
    return Prefetch(tuple(_ranges(spans) for spans in by_layer), frozenset(files))


def _ranges(spans: Iterable[int]) -> tuple[SpanRange, ...]:
    ranges: list[SpanRange] = []
    for span in sorted(spans):
        if ranges and ranges[-1][1] == span - 1:
            ranges[-1] = (ranges[-1][0], span)
        else:
            ranges.append((span, span))
    return tuple(ranges)
