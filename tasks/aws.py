"""AWS credentials from a block of Prefect's, for a registry on ECR; without one boto3 looks for its own."""

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound

from soci_pipeline.aws.client import opening
from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.registries import connect
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from tasks.outage import patiently

if TYPE_CHECKING:
    import boto3


def session_of(block: Block, place: str) -> "boto3.Session":
    """The session of a block of the type AwsCredentials; raises `InvalidInput` for a block of another type."""
    make = getattr(block, "get_boto3_session", None)
    if make is None:
        raise InvalidInput(
            f"the block {place} holds no AWS credentials", advice="Name one of the type AwsCredentials (prefect-aws)."
        )
    with opening():
        made: boto3.Session = make()
    return made


def ecr_session(settings: Settings) -> "boto3.Session | None":
    """The session that the settings name for ECR, or None; raises `InvalidInput` where there is no such block."""
    place = settings.ecr.credentials_block
    return None if place is None else session_of(load_block(place), place)


def load_block(place: str) -> Block:
    """A block by type and name (``aws-credentials/publisher``).

    Raises `InvalidInput` where there is none, and where what it holds does not match its type.
    """
    try:
        block: Block = patiently(lambda: Block.load(place, _sync=True))  # type: ignore[call-arg, assignment]
    except (ValueError, RuntimeError) as error:
        if isinstance(error.__cause__, ObjectNotFound):
            raise InvalidInput(
                f"there is no block {place}", advice="Make it in the Prefect UI, or with `prefect block create`."
            ) from error
        # Not as a cause: pydantic's words quote what the block holds.
        raise InvalidInput(
            f"the block {place} does not match its type ({type(error).__name__})",
            advice="Save it again in the Prefect UI, with all its fields.",
        ) from None
    return block


def connected(image: ImageReference, settings: Settings) -> RegistryClient:
    """A client for the registry of an image, with the credentials of the block that the settings name, if any."""
    return connect(image, settings, aws=ecr_session(settings))
