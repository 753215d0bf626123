"""The options by which a command reaches a registry, and the client that they make."""

import argparse
import os
from pathlib import Path

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.registries import connect
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--plain-http`` and ``--ca-file``."""
    parser.add_argument(
        "--plain-http",
        action="store_true",
        help="speak to the registry without TLS (loopback ones are, without --ca-file)",
    )
    parser.add_argument("--ca-file", type=Path, metavar="PEM", help="trust these certificates besides the system's")


def client_for(arguments: argparse.Namespace, reference: ImageReference) -> RegistryClient:
    """A client with the machine's credentials and settings; the options count for more. The caller closes it."""
    settings = Settings.from_environment()
    registry = settings.registry
    if arguments.plain_http:
        registry = registry.model_copy(update={"plain_http": (*registry.plain_http, reference.registry)})
    if arguments.ca_file is not None:
        registry = registry.model_copy(update={"ca_file": arguments.ca_file})
    return connect(reference, settings.model_copy(update={"registry": registry}))


def target_of(reference: ImageReference) -> str | Digest:
    """The tag or digest of a reference; raises `InvalidInput` where it has neither."""
    if reference.target is None:
        raise InvalidInput(f"{reference} names no image", advice="Add a tag or a digest: name:tag or name@sha256:….")
    return reference.target


def reference_of(text: str) -> ImageReference:
    """What was given as REFERENCE; raises `InvalidInput` where it is none, with advice of its own for a path."""
    try:
        return ImageReference.parse(text)
    except InvalidInput as error:
        if not os.path.exists(text):  # noqa: PTH110 - a Path raises where it may not look
            raise
        raise InvalidInput(
            f"{text} is on this machine, and an image in a registry is wanted",
            advice="`soci-pipeline push FOLDER REFERENCE` puts an OCI layout into a registry.",
        ) from error


def repository_of(text: str) -> ImageReference:
    """A reference that must be a repository alone; raises `InvalidInput`."""
    reference = reference_of(text)
    if reference.target is not None:
        raise InvalidInput(f"a repository is wanted, and {reference} is one image of it", advice="Leave the tag out.")
    return reference
