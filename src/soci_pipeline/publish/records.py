"""The record of a publication; `soci_pipeline.soci.index.records` has those of its images."""

from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.index.records import PlatformImage, Record


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
