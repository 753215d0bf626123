"""Index with containerd and the `soci` program, as the reference pipeline does.

Both tools push to the embedded registry on loopback, so that they never receive credentials. The pushed content is read
back and published by the same client as with the native indexer, and the result has the same type.
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
    """Index an imported image; the result is a new layout at ``destination``.

    v1 uses containerd: ``ctr image import``, ``soci create``, then a push by each. v2 does not need containerd:
    ``soci convert --standalone``. ``socket`` is containerd's socket (default: `find_socket`); ``env`` is the
    environment for finding and running the programs. The record of a layer without a zTOC contains the reason.

    Raises `ToolMissing` if a program is missing or too old, `EngineUnavailable` if containerd does not respond, and
    `ToolFailed`. Everything that the tools created in containerd or in soci's store is removed, even on failure.
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
        # `reaper.reap` reads this record to purge the namespace if this process is killed.
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
            raise ToolFailed(f"ctr did not push the image {digest}")
        soci_index, ztocs = None, {}
        if indexed:
            listed = client.referrers.list(_REPOSITORY, digest, SOCI_INDEX_V1)
            if len(listed) != 1:
                raise ToolFailed(f"soci pushed {len(listed)} indexes for {digest} instead of one")
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
    """Download a SOCI index and its zTOCs from the embedded registry into the result, and verify them."""
    found, data = client.manifests.get(_REPOSITORY, listed.digest)
    manifest = parse_image_manifest(data, media_type=found.media_type)
    for blob in manifest.children:
        with client.blobs.stream(_REPOSITORY, blob) as chunks:
            result.add_chunks(chunks, blob)
    return result.add_bytes(data, found.media_type), manifest


def _named(images: Sequence[SourceImage], references: Mapping[Digest, str]) -> list[Descriptor]:
    """Return the descriptors, annotated with the names under which containerd imports the images."""
    return [image.descriptor.annotated(annotations={_NAME: references[image.descriptor.digest]}) for image in images]
