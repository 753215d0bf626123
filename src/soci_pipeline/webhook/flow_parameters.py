"""The flows that an event may start, and the check of their parameters before a run is made."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.request import PublishRequest, VerifyMode
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.soci.records import SociOptions


class IndexParameters(BaseModel):
    """The parameters of the flow ``index-image`` that an event may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: ImageReference
    suffix: str = ""
    soci: SociOptions = SociOptions()
    verify: VerifyMode = VerifyMode.SAMPLE

    @field_validator("reference")
    @classmethod
    def _reference_has_a_target(cls, reference: ImageReference) -> ImageReference:
        if reference.tag is None and reference.digest is None:
            raise ValueError("a tag or a digest is needed")
        return reference


def check(deployment: str, parameters: Mapping[str, Any]) -> None:
    """Validate the parameters against the model of the deployment's flow; raises `InvalidInput`."""
    FLOWS[deployment.partition("/")[0]](parameters)


def _check_publish(parameters: Mapping[str, Any]) -> None:
    PublishRequest.check(parameters)


def _check_index(parameters: Mapping[str, Any]) -> None:
    try:
        IndexParameters.model_validate(dict(parameters))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        lines = [f"{'.'.join(str(part) for part in each['loc'][:3])}: {each['msg']}" for each in faults[:5]]
        raise InvalidInput("; ".join(lines)) from None


FLOWS: dict[str, Callable[[Mapping[str, Any]], None]] = {"publish-image": _check_publish, "index-image": _check_index}
