"""Parameters of the flow that indexes an image in a registry."""

from pydantic import Field

from soci_pipeline.images.parameters import EXAMPLE, ExistingReference
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.validation import Parameters
from soci_pipeline.verification.mode import VERIFY_MEANING, VerifyMode


class IndexParameters(Parameters):
    """An image in a registry, to be indexed without building it."""

    reference: ExistingReference = Field(
        title="Image",
        description="The image, with a tag or a digest. With a digest, no tag moves.",
        examples=[f"{EXAMPLE}:1.4"],
    )
    suffix: str = Field(
        default="",
        title="Suffix of a new tag",
        description="Keep the tag where it is, and create TAG plus this suffix instead; for immutable tags.",
        examples=["-soci"],
    )
    soci: SociOptions = Field(
        default=SociOptions(),
        title="SOCI index",
        description="The sizes of spans and layers. The version is always v2.",
    )
    verify: VerifyMode = Field(default=VerifyMode.SAMPLE, title="Verification", description=VERIFY_MEANING)
    dry_run: bool = Field(
        default=False, title="Dry run", description="Show what would be fetched and saved, and write nothing."
    )
