"""Settings for indexing an image in a registry."""

from dataclasses import dataclass, field
from pathlib import Path

from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.verification.mode import VerifyMode


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Settings for indexing an image. With ``suffix``, a new tag is written instead of moving the existing one.

    ``folder`` holds the manifests before they are pushed; None means the system's temporary folder. ``jobs`` is the
    number of layers to index in parallel.
    """

    soci: SociOptions = field(default_factory=SociOptions)
    suffix: str = ""
    build_tool: str = BUILD_TOOL
    mutability: TagMutability = field(default_factory=TagMutability)
    verify: VerifyMode = VerifyMode.SAMPLE
    jobs: int = 1
    dry_run: bool = False
    folder: Path | None = None
