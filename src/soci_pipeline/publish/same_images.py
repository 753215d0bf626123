"""Compare a joined index with the images under a tag, so that a schedule can skip an unchanged publication.

The comparison covers what runs and how it is loaded: for each platform the layers, the settings in the config and the
zTOCs. Times, the commit, the history, annotations and attestations are ignored, because a rebuild of the same content
changes them.
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
# Written by the classic builder: the config of the previous step, and the name of a step's container.
_OF_THE_BUILD = frozenset({"Image", "Hostname", "Domainname"})
_LABELS_OF_THE_BUILD = frozenset({CREATED, REVISION})


@dataclass(frozen=True, slots=True)
class Comparison:
    """The digest of a tag when it was read, None if it does not exist; and the difference, None if there is none."""

    there: Digest | None
    difference: str | None


def compare(client: RegistryClient, repository: str, index: Digest, tag: str) -> Comparison:
    """Compare ``index`` with the images under the tag, which is read once because it may move at any time.

    Anything that is not completely readable counts as different: publishing again repairs it.
    """
    findings = Findings()
    try:
        there = read_graph(client, repository, tag, findings)
    except ManifestUnknown:
        return Comparison(None, f"the tag {tag} does not exist")
    made = read_graph(client, repository, index, findings)
    return Comparison(there.root.digest, _difference(made, there, findings, tag))


def _difference(new: ImageGraph, old: ImageGraph, findings: Findings, tag: str) -> str | None:
    made = {each.platform: each for each in new.images}
    there = {each.platform: each for each in old.images}
    if findings.found:
        return str(findings.found[0])
    if made.keys() != there.keys():
        return f"{tag} has {_names(there)}, but this is {_names(made)}"
    for platform, image in sorted(made.items(), key=lambda item: str(item[0])):
        for what, mine in _content(image).items():
            if mine != _content(there[platform])[what]:
                return f"{platform} has different {what}"
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
