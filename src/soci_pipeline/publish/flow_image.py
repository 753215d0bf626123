"""A build step for `prefect.yaml`: publish the image of a Prefect user's own flows for several platforms, with SOCI.

`prefect deploy` calls `publish` with the step's keys and puts what it returns into the deployment::

    build:
      - soci_pipeline.publish.flow_image.publish:
          id: built
          image_name: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/flows
          platforms: [linux/amd64, linux/arm64]
    work_pool:
      job_variables:
        image: "{{ built.image }}"

Nothing here imports Prefect. The machine's engine builds each platform, by emulation where it is another one's.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from soci_pipeline.builders.builder import choose
from soci_pipeline.builders.import_image import import_image
from soci_pipeline.builders.request import BuildRequest
from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.log import logger
from soci_pipeline.machine.workspace import workspace
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.collect import reader
from soci_pipeline.publish.join import join
from soci_pipeline.publish.left_overs import REMOVERS
from soci_pipeline.publish.registries import check_push, connect, prepare
from soci_pipeline.publish.tag_names import check_tag
from soci_pipeline.publish.tags import move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import PlatformImage, SociOptions
from soci_pipeline.soci.ztoc.store import CacheFolder
from soci_pipeline.verification.verify import verify

PLATFORMS = ("linux/amd64", "linux/arm64")


def publish(
    *,
    image_name: str,
    tag: str | None = None,
    dockerfile: str = "Dockerfile",
    context: str = ".",
    platforms: Sequence[str] = PLATFORMS,
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    builder: str = "auto",
    prebuilt: str | None = None,
    pull: bool = False,
) -> dict[str, str]:
    """Build, index, push, join and verify the image of the current folder, then write its tag.

    ``image_name`` has the registry and no tag; ``tag`` is the time by default, as of Prefect's own build step.
    ``context`` is a folder below the current one, in which `prefect deploy` is called, and ``dockerfile`` a path from
    there. Returns ``image`` (``name:tag``), ``image_name``, ``tag``, ``digest``, and ``reference`` (``name@digest``).

    Raises the library's errors. The tag is written last, and only if the image was read back through its indexes.
    """
    image, names = _image(image_name), tuple(dict.fromkeys(Platform.parse(each).normalised() for each in platforms))
    if not names:
        raise InvalidInput("platforms is empty", advice=f"Name at least one, for example {PLATFORMS[0]}.")
    chosen = check_tag(time.strftime("%Y-%m-%dt%H-%M-%Sz", time.gmtime()) if tag is None else str(tag))
    settings = Settings.from_environment()
    mutability = prepare(image, settings)
    moment = int(time.time())
    with (
        workspace(settings.work.folder, f"flow-image-{uuid.uuid4().hex[:12]}", REMOVERS) as folder,
        connect(image, settings) as client,
    ):
        check_push(client, image.repository)
        images = []
        for platform in names:
            request = BuildRequest(
                source=Path.cwd(),
                context=context,
                dockerfile=dockerfile,
                target=target,
                build_args={name: str(value) for name, value in (build_args or {}).items()},
                platform=platform,
                source_date_epoch=moment,
                buildx_builder=settings.build.buildx_builder,
                prebuilt=prebuilt,
                pull=pull,
                network=settings.build.network,
            )
            images.append(_Platform(request, builder, image, folder, settings).publish(client))
        index = _joined(client, image, images, names)
        report = verify(client, image.repository, index.digest, platforms=names)
        report.raise_for_findings(f"{image.name}@{index.digest}")
        move_tags(client, image.repository, index, [chosen], mutability=mutability)
    logger().info("published %s:%s (%s)", image.name, chosen, index.digest)
    return {
        "image": f"{image_name}:{chosen}",
        "image_name": image_name,
        "tag": chosen,
        "digest": str(index.digest),
        "reference": f"{image_name}@{index.digest}",
    }


def _image(name: str) -> ImageReference:
    image = ImageReference.parse(name)
    if image.tag is not None or image.digest is not None:
        raise InvalidInput(
            f"image_name {name!r} has a tag or digest", advice="Give the repository alone, and the tag as `tag`."
        )
    return image


@dataclass(frozen=True, slots=True)
class _Platform:
    """The work for one platform, in a folder of the run."""

    request: BuildRequest
    builder: str
    image: ImageReference
    folder: Path
    settings: Settings

    def publish(self, client: RegistryClient) -> PlatformImage:
        """Build, index, and push by digest."""
        platform = self.request.platform
        logger().info("building %s for %s", self.image.name, platform)
        conversion = convert(
            self._built(),
            self.folder / f"{platform.slug}-indexed",
            options=SociOptions(),
            jobs=self.settings.work.jobs,
            ztocs=CacheFolder(self.settings.work.ztoc_cache),
        )
        found = next((each for each in conversion.images if each.platform.matches(platform)), None)
        if found is None:
            raise SociPipelineError(f"the built image is not for {platform}")
        self._push(conversion.layout, found, client)
        return found

    def _built(self) -> Layout:
        platform = self.request.platform
        builder = choose(self.builder, self.request, connect=partial(connect, settings=self.settings))
        built = builder.build(self.request, self.folder / f"{platform.slug}-built")
        return import_image(
            built,
            self.folder / f"{platform.slug}-image",
            platform=platform,
            compress=builder.compresses,
            check_diff_ids=not builder.trusted,
        )

    def _push(self, layout: Layout, image: PlatformImage, client: RegistryClient) -> None:
        roots = [image.manifest, *image.attestations, *filter(None, [image.soci_index])]
        for root in roots:
            push_graph(layout, root, client, self.image.repository, jobs=self.settings.registry.jobs)


def _joined(
    client: RegistryClient, image: ImageReference, images: Sequence[PlatformImage], platforms: Sequence[Platform]
) -> Descriptor:
    """The image index of all platforms, pushed by its digest."""
    index = join(images, annotations={}, read=reader(client, image.repository), platforms=platforms)
    client.manifests.put(image.repository, index.descriptor.digest, index.encode(), index.media_type)
    return index.descriptor
