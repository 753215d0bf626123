"""AWS credentials for ECR from a Prefect block; without one, boto3 uses its own chain."""

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound

from soci_pipeline.aws.client import opening
from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.registries import connect
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from tasks.outage import retry_during_outage

if TYPE_CHECKING:
    import boto3


def session_of(block: Block, place: str) -> "boto3.Session":
    """Return the session of an AwsCredentials block; raise `InvalidInput` for a block of another type."""
    make = getattr(block, "get_boto3_session", None)
    if make is None:
        raise InvalidInput(
            f"the block {place} does not contain AWS credentials",
            advice="Use a block of the type AwsCredentials (prefect-aws).",
        )
    with opening():
        made: boto3.Session = make()
    return made


def ecr_session(settings: Settings) -> "boto3.Session | None":
    """Return the session for ECR from the settings, or None; raise `InvalidInput` if the block does not exist."""
    place = settings.ecr.credentials_block
    return None if place is None else session_of(load_block(place), place)


def load_block(place: str) -> Block:
    """Load a block by type and name (``aws-credentials/publisher``).

    Raises `InvalidInput` if it does not exist or its content does not match its type.
    """
    try:
        block: Block = retry_during_outage(lambda: Block.load(place, _sync=True))  # type: ignore[call-arg, assignment]
    except (ValueError, RuntimeError) as error:
        if isinstance(error.__cause__, ObjectNotFound):
            raise InvalidInput(
                f"the block {place} does not exist",
                advice="Create it in the Prefect UI, or with `prefect block create`.",
            ) from error
        # Without a cause: pydantic's message quotes the block's content.
        raise InvalidInput(
            f"the block {place} does not match its type ({type(error).__name__})",
            advice="Save it again in the Prefect UI, with all its fields.",
        ) from None
    return block


def connected(image: ImageReference, settings: Settings) -> RegistryClient:
    """Return a client for the image's registry, with the credentials of the block in the settings, if any."""
    return connect(image, settings, aws=ecr_session(settings))
