"""Parameters of the flow that verifies an image in a registry."""

from typing import Literal

from pydantic import Field

from soci_pipeline.images.parameters import EXAMPLE, ExistingReference
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.validation import Parameters
from soci_pipeline.verification.mode import VerifyMode


class VerifyParameters(Parameters):
    """A published image to verify through its SOCI indexes."""

    reference: ExistingReference = Field(
        title="Image", description="The image, with a tag or a digest.", examples=[f"{EXAMPLE}:1.4"]
    )
    mode: Literal[VerifyMode.SAMPLE, VerifyMode.ALL] = Field(
        default=VerifyMode.SAMPLE,
        title="How much to read",
        description="sample: every manifest and zTOC, and some spans of each layer. all: every byte.",
    )
    platforms: tuple[Platform, ...] | None = Field(
        default=None,
        title="Platforms",
        description="Platforms that must be present, such as linux/arm64. Empty: verify whatever is present.",
    )

    @property
    def target(self) -> str | Digest:
        """The image's digest or tag; one of them is always present."""
        return self.reference.target or ""
