"""The flows that an event can start, and the validation of their parameters before a run is created."""

from collections.abc import Mapping
from typing import Any

from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.reindex.parameters import IndexParameters
from soci_pipeline.validation import Parameters

FLOWS: dict[str, type[Parameters]] = {"publish-image": PublishRequest, "index-image": IndexParameters}


def check(deployment: str, parameters: Mapping[str, Any]) -> None:
    """Validate the parameters against the model of the deployment's flow; raise `InvalidInput`."""
    FLOWS[deployment.partition("/")[0]].check(parameters)
