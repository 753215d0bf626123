"""Descriptors, which refer to a blob or manifest (image-spec, descriptor.md)."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.canonical_json import sorted_map
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import is_foreign_layer
from soci_pipeline.oci.platform import Platform


class Descriptor(BaseModel):
    """A media type, a digest and a size in bytes, with optional fields such as annotations and a platform."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    media_type: str
    digest: Digest
    size: int = Field(ge=0, lt=1 << 63, strict=True)
    annotations: dict[str, str] = Field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    data: str = ""

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Parse a descriptor object; raise `InvalidInput` if a field is missing or invalid."""
        if not isinstance(value, Mapping):
            raise InvalidInput(f"not a valid descriptor: {str(value)[:200]}")
        try:
            platform = value.get("platform")
            return cls(
                media_type=value["mediaType"],
                digest=value["digest"],
                size=value["size"],
                annotations=value.get("annotations") or {},
                platform=Platform.from_json(platform) if platform else None,
                artifact_type=value.get("artifactType") or "",
                urls=value.get("urls") or (),
                data=value.get("data") or "",
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"not a valid descriptor ({error!s:.200}): {str(value)[:200]}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object in the key order of image-spec's Go type, without empty fields."""
        fields: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            fields["urls"] = list(self.urls)
        if self.annotations:
            fields["annotations"] = sorted_map(self.annotations)
        if self.data:
            fields["data"] = self.data
        if self.platform is not None:
            fields["platform"] = self.platform.to_json()
        if self.artifact_type:
            fields["artifactType"] = self.artifact_type
        return fields

    def annotated(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return self.model_copy(update=changes)

    @property
    def may_be_foreign(self) -> bool:
        """Whether the blob may be absent from registries and layouts: it has ``urls`` or is a foreign layer."""
        return bool(self.urls) or is_foreign_layer(self.media_type)

    @property
    def plain(self) -> "Descriptor":
        """A descriptor with only media type, digest and size, for example for `subject`."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)
