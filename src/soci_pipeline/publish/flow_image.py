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

Nothing here imports Prefect. It publishes the current folder from this machine, as `soci-pipeline publish .` does.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.local_run import check_local, publish_here
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings

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
    chosen = time.strftime("%Y-%m-%dt%H-%M-%Sz", time.gmtime()) if tag is None else str(tag)
    request = _request(
        source=str(Path.cwd()),
        image=_repository(image_name),
        tags=[chosen],
        platforms=list(platforms),
        context=context,
        dockerfile=dockerfile,
        target=target,
        build_args={name: str(value) for name, value in (build_args or {}).items()},
        builder=builder,
        prebuilt=prebuilt,
        pull=pull,
    )
    check_local(request)
    published = publish_here(request, Settings.from_environment(), all_platforms=True)
    digest = str(published.index)
    return {
        "image": f"{image_name}:{chosen}",
        "image_name": image_name,
        "tag": chosen,
        "digest": digest,
        "reference": f"{image_name}@{digest}",
    }


def _request(**fields: Any) -> PublishRequest:
    try:
        return PublishRequest.check(fields)
    except InvalidInput as error:
        raise InvalidInput(error.reason, advice="Correct the build step; nothing was built.") from None


def _repository(name: str) -> str:
    image = ImageReference.parse(name)
    if image.tag is not None or image.digest is not None:
        raise InvalidInput(
            f"image_name {name!r} has a tag or digest", advice="Use only the repository, and set the tag in `tag`."
        )
    return name
