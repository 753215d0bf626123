"""How an image that is in a registry is indexed."""

from dataclasses import dataclass, field
from pathlib import Path

from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.verification.mode import VerifyMode


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """``suffix`` writes another tag instead of moving the one that was read.

    ``folder`` is where manifests are made before they are pushed; the system's temporary folder where None.
    """

    soci: SociOptions = field(default_factory=SociOptions)
    suffix: str = ""
    build_tool: str = BUILD_TOOL
    mutability: TagMutability = field(default_factory=TagMutability)
    verify: VerifyMode = VerifyMode.SAMPLE
    jobs: int = 1
    dry_run: bool = False
    folder: Path | None = None
