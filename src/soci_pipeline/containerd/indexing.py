"""Indexing with containerd and the `soci` program, as the reference pipeline does it.

Both tools push to the embedded registry on loopback, so that no credentials ever reach them; what they pushed is read
back, and the same client as everywhere publishes it. The answer is that of the native indexer.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.archive.write import write_archive
from soci_pipeline.containerd.ctr import Containerd, purged_afterwards
from soci_pipeline.containerd.soci_command import find_soci
from soci_pipeline.containerd.socket import find_socket
from soci_pipeline.containerd.source_images import (
    SourceImage,
    attestations_of,
    index_of,
    layer_records,
    source_images,
    take_over,
    ztocs_by_layer,
)
from soci_pipeline.containerd.standalone import convert_standalone
from soci_pipeline.errors import ToolFailed
from soci_pipeline.machine.working_folder import CONTAINERD_RECORD, PREFIX, working_folder
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V1
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server.serving import serving
from soci_pipeline.soci.index.convert import Conversion
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage, SociOptions

_REPOSITORY = "soci-pipeline/image"
_NAME = "io.containerd.image.name"


def index_with_containerd(
    layout: Layout,
    destination: Path,
    *,
    options: SociOptions,
    socket: Path | str | None = None,
    env: Mapping[str, str] | None = None,
) -> Conversion:
    """Index an image that import has made; the result is a new layout at ``destination``.

    v1 goes through containerd: ``ctr image import``, ``soci create``, then both push. v2 needs no containerd:
    ``soci convert --standalone``. ``socket`` names containerd's, which is looked for otherwise (`find_socket`);
    ``env`` is the environment in which the programs are found. A layer without a zTOC carries the reason.

    Raises `ToolMissing` for a missing or old program, `EngineUnavailable` where containerd does not answer, and
    `ToolFailed`. Whatever the tools made in containerd or in soci's store is removed in any case.
    """
    environment = dict(os.environ if env is None else env)
    with working_folder(destination.parent, purpose="containerd") as folder:
        if options.version is IndexVersion.V2:
            return convert_standalone(layout, destination, options=options, env=environment, folder=folder)
        run = _Run.prepare(folder, socket=socket, env=environment, options=options)
        return run.index(layout, destination)


@dataclass(frozen=True)
class _Run:
    folder: Path
    containerd: Containerd
    options: SociOptions

    @classmethod
    def prepare(
        cls, folder: Path, *, socket: Path | str | None, env: Mapping[str, str], options: SociOptions
    ) -> "_Run":
        namespace = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        containerd = Containerd(find_socket(socket, env=env), namespace, env)
        containerd.check()
        # For `reaper.reap`, in case this process is killed.
        (folder / CONTAINERD_RECORD).write_text(f"{containerd.socket}\n{namespace}\n")
        return cls(folder, containerd, options)

    def index(self, layout: Layout, destination: Path) -> Conversion:
        images, attestations = source_images(layout)
        soci = find_soci(self.containerd.environment, self.folder / "store")
        result = Layout.create(destination)
        take_over(layout, [*(image.descriptor for image in images), *attestations], result)
        with (
            serving(self.folder / "registry") as address,
            RegistryClient(address, plain_http=True) as client,
            purged_afterwards(self.containerd),
        ):
            references = {image.descriptor.digest: f"{address}/{_REPOSITORY}:{image.platform.slug}" for image in images}
            archive = write_archive(layout, self.folder / "image.tar", roots=_named(images, references))
            self.containerd.import_archive(archive)
            archive.unlink()
            records = []
            for image in images:
                reference = references[image.descriptor.digest]
                indexed = soci.create(reference, image.platform, self.options)
                self.containerd.push(reference)
                if indexed:
                    soci.push(reference, image.platform)
                record = self._record(client, image, result, indexed=indexed)
                records.append(record.model_copy(update={"attestations": attestations_of(image, attestations)}))
        root = result.add_document(index_of([record.manifest for record in records], attestations))
        result.set_roots([root])
        return Conversion(layout=result, root=root, images=tuple(records))

    def _record(self, client: RegistryClient, image: SourceImage, result: Layout, *, indexed: bool) -> PlatformImage:
        digest = image.descriptor.digest
        if client.manifests.head(_REPOSITORY, digest) is None:
            raise ToolFailed(f"ctr did not push the image {digest} that it was given")
        soci_index, ztocs = None, {}
        if indexed:
            listed = client.referrers.list(_REPOSITORY, digest, SOCI_INDEX_V1)
            if len(listed) != 1:
                raise ToolFailed(f"soci pushed {len(listed)} indexes for {digest}, and one was expected")
            fetched, manifest = _fetched(client, listed[0], result)
            soci_index = fetched.annotated(artifact_type=SOCI_INDEX_V1, platform=image.platform)
            ztocs = ztocs_by_layer(manifest)
        return PlatformImage(
            platform=image.platform,
            manifest=image.descriptor,
            soci_index=soci_index,
            soci_version=IndexVersion.V1,
            layers=layer_records(result, image.manifest.layers, ztocs, self.options),
        )


def _fetched(client: RegistryClient, listed: Descriptor, result: Layout) -> tuple[Descriptor, ImageManifest]:
    """Bring a SOCI index and its zTOCs from the embedded registry into the result, verified."""
    found, data = client.manifests.get(_REPOSITORY, listed.digest)
    manifest = parse_image_manifest(data, media_type=found.media_type)
    for blob in manifest.children:
        with client.blobs.stream(_REPOSITORY, blob) as chunks:
            result.add_chunks(chunks, blob)
    return result.add_bytes(data, found.media_type), manifest


def _named(images: Sequence[SourceImage], references: Mapping[Digest, str]) -> list[Descriptor]:
    """Each image under the name that containerd shall give it."""
    return [image.descriptor.annotated(annotations={_NAME: references[image.descriptor.digest]}) for image in images]
