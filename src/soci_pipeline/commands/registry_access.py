"""The options for access to a registry, and the client that they configure."""

import os
from collections.abc import Sequence

import click

from soci_pipeline.commands.command import FILE_PATH, Arguments, combine
from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.registries import connect
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings

_MOST_TAGS = 10

registry_options = combine(
    click.option(
        "--plain-http",
        is_flag=True,
        help="use plain HTTP for the registry (the default on loopback, unless --ca-file is set)",
    ),
    click.option(
        "--ca-file", type=FILE_PATH, metavar="PEM", help="trust these certificates in addition to the system's"
    ),
)
"""``--plain-http`` and ``--ca-file``."""


def client_for(arguments: Arguments, reference: ImageReference) -> RegistryClient:
    """Return a client with the machine's credentials and settings, which the options override. The caller closes it."""
    return connect(reference, settings_for(arguments, reference))


def settings_for(arguments: Arguments, reference: ImageReference) -> Settings:
    """Return the machine's settings, overridden by the options of `registry_options`."""
    settings = Settings.from_environment()
    registry = settings.registry
    if arguments.plain_http:
        registry = registry.model_copy(update={"plain_http": (*registry.plain_http, reference.registry)})
    if arguments.ca_file is not None:
        registry = registry.model_copy(update={"ca_file": arguments.ca_file})
    return settings.model_copy(update={"registry": registry})


def reference_of(text: str) -> ImageReference:
    """Parse REFERENCE; raise `InvalidInput` if it is not valid, with specific advice for a path."""
    try:
        return ImageReference.parse(text)
    except InvalidInput as error:
        if not _is_here(text):
            raise
        raise _on_this_machine(text) from error


def image_in_registry(arguments: Arguments, text: str) -> tuple[ImageReference, str | Digest]:
    """Like `image_of`; for a repository without a tag or digest, the advice lists the repository's tags."""
    reference = reference_of(text)
    # Without a registry in the text, the name may be a misspelled path; do not contact Docker Hub for it.
    if reference.target is not None or _is_here(text) or not text.startswith(f"{reference.registry}/"):
        return image_of(text)
    with client_for(arguments, reference) as client:
        try:
            tags = client.tags.list(reference.repository)
        except SociPipelineError:
            # The tags are only a hint: the error is about the reference.
            return image_of(text)
    raise InvalidInput(
        f"{reference} has no tag or digest, so it does not identify an image", advice=_tags_advice(reference, tags)
    )


def _tags_advice(reference: ImageReference, tags: Sequence[str]) -> str:
    if not tags:
        return "The repository has no tags. Add a digest: name@sha256:…."
    more = f" and {len(tags) - _MOST_TAGS} more" if len(tags) > _MOST_TAGS else ""
    return f"Add a tag, for example {reference}:{tags[-1]}. The tags are {', '.join(tags[-_MOST_TAGS:])}{more}."


def image_of(text: str) -> tuple[ImageReference, str | Digest]:
    """Return a reference with a tag or digest; raise `InvalidInput` as `reference_of` does."""
    reference = reference_of(text)
    if reference.target is not None:
        return reference, reference.target
    if _is_here(text):
        raise _on_this_machine(text)
    raise InvalidInput(
        f"{reference} does not identify an image", advice="Add a tag or a digest: name:tag or name@sha256:…."
    )


def _is_here(path: str) -> bool:
    # A Path raises without permission.
    return os.path.exists(path)  # noqa: PTH110


def _on_this_machine(path: str) -> InvalidInput:
    made = "" if os.path.isdir(path) else "`soci-pipeline convert` turns an archive into an OCI layout, and "  # noqa: PTH112
    return InvalidInput(
        f"{path!r} is on this machine, but an image in a registry is required",
        advice=f"{made}`soci-pipeline push LAYOUT REFERENCE` pushes it to a registry.",
    )


def repository_of(text: str) -> ImageReference:
    """Return a reference that is only a repository; raise `InvalidInput` otherwise."""
    reference = reference_of(text)
    if reference.target is not None:
        raise InvalidInput(f"a repository is required, but {reference} names one of its images", advice="Omit the tag.")
    return reference
