"""The record of a publication; `soci_pipeline.soci.index.records` has those of its images."""

from typing import Any, Self

from pydantic import Field

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.index.records import PlatformImage, Record
from soci_pipeline.verification.verify import VerificationReport


class PublishedImage(Record):
    """One finished publication: the image index under its repository, and what it is made of.

    ``same_as`` is the tag that holds the same images already; then ``reference`` and ``index`` are what is there, and
    no tag was written.
    """

    reference: str
    index: Digest
    platforms: tuple[PlatformImage, ...]
    tags: tuple[str, ...] = ()
    verified: bool = False
    same_as: str | None = None


class PublicationResult(PublishedImage):
    """What a finished publication tells people: the image, what was checked, and how long it took.

    ``lazy_bytes`` and ``total_bytes`` are those of the verification report, ``checked`` its words. ``commit`` is None
    for files that are in no commit; ``uncommitted`` then says why. ``left_out`` are tag templates, and ``not_built``
    platforms, each with the reason.
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
    """The folder of the OCI layout, where the publication stopped before the push."""
    run_url: str | None = None
    """The page of the flow run, where it went through Prefect."""

    @classmethod
    def of(
        cls, published: PublishedImage, report: VerificationReport | None, *, commit: str | None, seconds: float
    ) -> Self:
        """Add to a publication what its verification found and how long it took."""
        checked = (
            {}
            if report is None
            else {
                "checked": report.checked_in_words(),
                "lazy_bytes": report.lazy_bytes,
                "total_bytes": report.total_bytes,
            }
        )
        return cls.model_validate(
            {name: getattr(published, name) for name in PublishedImage.model_fields}
            | {"commit": commit, "seconds": round(seconds, 1), **checked}
        )

    def as_json(self) -> dict[str, Any]:
        """The object that the command prints with ``--json``."""
        fields = self.model_dump(mode="json", exclude={"platforms"})
        return fields | {"platforms": [each.summary() | _work(each) for each in self.platforms]}


def _work(image: PlatformImage) -> dict[str, Any]:
    return image.model_dump(mode="json", include={"bytes_uploaded", "bytes_skipped", "timings"})
