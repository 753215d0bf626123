"""Parameters shared by flows that work on images in a registry."""

from typing import Annotated

from pydantic import AfterValidator

from soci_pipeline.registry.reference import ImageReference


def _has_a_target(reference: ImageReference) -> ImageReference:
    if reference.target is None:
        raise ValueError(f"{reference} has neither a tag nor a digest; use registry/repository:tag")
    return reference


ExistingReference = Annotated[ImageReference, AfterValidator(_has_a_target)]
"""An image with a tag or a digest."""

EXAMPLE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web"
"""Example repository for forms."""
