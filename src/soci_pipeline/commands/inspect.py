"""Show the parts of an image: its platforms, their layers with zTOCs, and its referrers.

Only manifests and configs are downloaded. Errors found on the way are listed and do not change the exit status; use
`verify` to check an image.

Exit statuses: 0 shown; 3 the reference is not valid, or has no image; 10 to 12 the registry rejects the request (or has
nothing under the reference), does not answer, or requires other credentials.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.registry_access import client_for, image_in_registry, registry_options
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph, ImageNode, read_graph
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.text import sized


@command(__doc__)
@click.argument("reference", metavar="REFERENCE", help="an image, by tag or digest")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    reference, target = image_in_registry(arguments, arguments.reference)
    findings = Findings()
    with client_for(arguments, reference) as client:
        graph = read_graph(client, reference.repository, target, findings)
        answer = _answer(client, reference, graph)
    answer["findings"] = [{"where": each.where, "what": each.what} for each in findings.found]
    return CommandResult(json=answer, text="\n".join(_lines(answer)))


def _answer(client: RegistryClient, reference: ImageReference, graph: ImageGraph) -> dict[str, Any]:
    root = graph.root
    return {
        "reference": str(reference),
        "index" if graph.index is not None else "manifest": str(root.digest),
        "media_type": root.media_type,
        "size": root.size,
        "annotations": graph.document.annotations,
        "platforms": [_image(client, reference.repository, image) for image in graph.images],
        "referrers": _referrers(client, reference.repository, root.digest),
    }


def _image(client: RegistryClient, repository: str, image: ImageNode) -> dict[str, Any]:
    ztocs = {
        ztoc.annotations.get(IMAGE_LAYER_DIGEST): ztoc for soci in image.soci_indexes for ztoc in soci.manifest.layers
    }
    return {
        "platform": str(image.platform),
        "manifest": str(image.descriptor.digest),
        "soci_index": next((str(soci.descriptor.digest) for soci in image.soci_indexes), None),
        "soci_version": next((str(soci.version) for soci in image.soci_indexes), None),
        "size": sum(layer.size for layer in image.manifest.layers),
        "layers": [_layer(layer, ztocs.get(layer.digest)) for layer in image.manifest.layers],
        "attestations": [str(each.digest) for each in image.attestations],
        "referrers": _referrers(client, repository, image.descriptor.digest),
    }


def _layer(layer: Descriptor, ztoc: Descriptor | None) -> dict[str, Any]:
    return {
        "digest": str(layer.digest),
        "size": layer.size,
        "media_type": layer.media_type,
        "ztoc": str(ztoc.digest) if ztoc else None,
        "ztoc_size": ztoc.size if ztoc else None,
    }


def _referrers(client: RegistryClient, repository: str, digest: Digest) -> list[dict[str, Any]]:
    found = client.referrers.list(repository, digest)
    return [{"digest": str(each.digest), "artifact_type": each.artifact_type, "size": each.size} for each in found]


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    yield answer["reference"]
    yield f"  {answer.get('index') or answer['manifest']}  {answer['media_type']}"
    yield from _referrer_lines(answer, "  ")
    for image in answer["platforms"]:
        yield f"  {image['platform']}  {image['manifest']}  {sized(image['size'])}"
        for layer in image["layers"]:
            ztoc = f"zTOC {layer['ztoc']}, {sized(layer['ztoc_size'])}" if layer["ztoc"] else "no zTOC"
            yield f"    layer {layer['digest']}  {sized(layer['size'])}  {ztoc}"
        if image["soci_index"]:
            yield f"    SOCI index {image['soci_version']}  {image['soci_index']}"
        for digest in image["attestations"]:
            yield f"    attestation  {digest}"
        yield from _referrer_lines(image, "    ")
    for finding in answer["findings"]:
        yield f"  fault: {finding['where']}: {finding['what']}"


def _referrer_lines(answer: Mapping[str, Any], indent: str) -> Iterator[str]:
    for each in answer["referrers"]:
        yield f"{indent}referrer  {each['digest']}  {each['artifact_type']}"
