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
        description="The image, with a tag or a digest. A digest gets an indexed image and no tag.",
        examples=[f"{EXAMPLE}:1.4"],
    )
    suffix: str = Field(
        default="",
        title="Suffix of a new tag",
        description="Leave the tag where it is, and write TAG followed by this instead; for tags that must not move.",
        examples=["-soci"],
    )
    soci: SociOptions = Field(
        default=SociOptions(), title="SOCI index", description="The sizes. The version is always v2."
    )
    verify: VerifyMode = Field(default=VerifyMode.SAMPLE, title="Verification", description=VERIFY_MEANING)
    dry_run: bool = Field(
        default=False, title="Dry run", description="Say what would be fetched and saved, and write nothing."
    )
