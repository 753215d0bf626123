"""Whether a joined index holds the same images as a tag does: what a schedule asks before it publishes.

Compared is what a container is made of and how it is loaded: for each platform the layers, the settings of the config
and the zTOCs. Times, the commit, the history, annotations and attestations are left out, since a rebuild of the same
content changes them, and what runs is the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph, ImageNode, read_graph
from soci_pipeline.oci.annotations import CREATED, IMAGE_LAYER_DIGEST, REVISION
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown

_PLATFORM = ("os", "architecture", "variant", "os.version", "os.features")
# The classic builder's own: the config of the step before, and the name of the container that a step ran in.
_OF_THE_BUILD = frozenset({"Image", "Hostname", "Domainname"})
_LABELS_OF_THE_BUILD = frozenset({CREATED, REVISION})


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a tag held when it was read, None where there is no such tag; and what is not the same, None for nothing."""

    there: Digest | None
    difference: str | None


def compare(client: RegistryClient, repository: str, index: Digest, tag: str) -> Comparison:
    """Compare ``index`` with what the tag holds, which is read once: it may move at any time.

    Whatever cannot be read whole counts as different: publishing again is what mends it.
    """
    findings = Findings()
    try:
        there = read_graph(client, repository, tag, findings)
    except ManifestUnknown:
        return Comparison(None, f"there is no tag {tag}")
    made = read_graph(client, repository, index, findings)
    return Comparison(there.root.digest, _difference(made, there, findings, tag))


def _difference(new: ImageGraph, old: ImageGraph, findings: Findings, tag: str) -> str | None:
    made = {each.platform: each for each in new.images}
    there = {each.platform: each for each in old.images}
    if findings.found:
        return str(findings.found[0])
    if made.keys() != there.keys():
        return f"{tag} has {_names(there)}, and this is {_names(made)}"
    for platform, image in sorted(made.items(), key=lambda item: str(item[0])):
        for what, mine in _content(image).items():
            if mine != _content(there[platform])[what]:
                return f"{platform} has other {what}"
    return None


def _names(images: Mapping[Any, ImageNode]) -> str:
    return ", ".join(sorted(map(str, images))) or "nothing"


def _content(image: ImageNode) -> dict[str, Any]:
    return {
        "layers": [layer.digest for layer in image.manifest.layers],
        "settings": _settings(image.config),
        "zTOCs": {
            (node.version, ztoc.annotations.get(IMAGE_LAYER_DIGEST), ztoc.digest)
            for node in image.soci_indexes
            for ztoc in node.manifest.layers
        },
    }


def _settings(config: bytes) -> dict[str, Any]:
    fields = json.loads(config)
    found = {name: fields.get(name) for name in (*_PLATFORM, "rootfs")}
    process = fields.get("config")
    if isinstance(process, Mapping):
        found["config"] = {name: value for name, value in process.items() if value and name not in _OF_THE_BUILD}
        labels = found["config"].get("Labels")
        if isinstance(labels, Mapping):
            found["config"]["Labels"] = {k: v for k, v in labels.items() if k not in _LABELS_OF_THE_BUILD}
    return found
