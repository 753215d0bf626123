"""The record of a publication; `soci_pipeline.soci.records` has those of its images."""

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.records import PlatformImage, Record


class PublishedImage(Record):
    """One finished publication: the image index under its repository, and what it is made of."""

    reference: str
    index: Digest
    platforms: tuple[PlatformImage, ...]
    tags: tuple[str, ...] = ()
    verified: bool = False
