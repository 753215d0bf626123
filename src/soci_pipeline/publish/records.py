"""The record of a publication; `soci_pipeline.soci.index.records` has those of its images."""

from typing import Any, Self

from pydantic import Field

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.index.records import PlatformImage, Record
from soci_pipeline.verification.verify import VerificationReport


class PublishedImage(Record):
    """A finished publication: the image index in its repository, and its parts.

    ``same_as`` is the tag that already has the same images; ``reference`` and ``index`` are then those of the tag, and
    no tag was written.
    """

    reference: str
    index: Digest
    platforms: tuple[PlatformImage, ...]
    tags: tuple[str, ...] = ()
    verified: bool = False
    same_as: str | None = None


class PublicationResult(PublishedImage):
    """What users see of a finished publication: the image, what was verified, and the duration.

    ``lazy_bytes`` and ``total_bytes`` come from the verification report, ``checked`` is its summary. ``commit`` is None
    for uncommitted files, and ``uncommitted`` then says why. ``left_out`` (tag templates) and ``not_built`` (platforms)
    have the reason for each.
    """

    commit: str | None = None
    uncommitted: str | None = None
    checked: str | None = None
    lazy_bytes: int = 0
    total_bytes: int = 0
    seconds: float = 0.0
    left_out: dict[str, str] = Field(default_factory=dict)
    not_built: dict[str, str] = Field(default_factory=dict)
    layout: str | None = None
    """The folder of the OCI layout, if the publication stopped before the push."""
    run_url: str | None = None
    """The page of the flow run, if it was published through Prefect."""

    @classmethod
    def of(
        cls, published: PublishedImage, report: VerificationReport | None, *, commit: str | None, seconds: float
    ) -> Self:
        """Add the verification report and the duration to a publication."""
        checked = (
            {}
            if report is None
            else {
                "checked": report.checked_summary(),
                "lazy_bytes": report.lazy_bytes,
                "total_bytes": report.total_bytes,
            }
        )
        return cls.model_validate(
            {name: getattr(published, name) for name in PublishedImage.model_fields}
            | {"commit": commit, "seconds": round(seconds, 1), **checked}
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command prints with ``--json``."""
        fields = self.model_dump(mode="json", exclude={"platforms"})
        return fields | {"platforms": [each.summary() | _work(each) for each in self.platforms]}


def _work(image: PlatformImage) -> dict[str, Any]:
    return image.model_dump(mode="json", include={"bytes_uploaded", "bytes_skipped", "timings"})
