"""Remove what a killed run created outside its folder, using the records that it left there."""

from collections.abc import Mapping
from typing import Final

from soci_pipeline.builders.buildx import remove_recorded_builder
from soci_pipeline.containerd.ctr import remove_recorded_namespace
from soci_pipeline.machine.reaper import Remover
from soci_pipeline.machine.working_folder import BUILDER_RECORD, CONTAINERD_RECORD

REMOVERS: Final[Mapping[str, Remover]] = {
    BUILDER_RECORD: remove_recorded_builder,
    CONTAINERD_RECORD: remove_recorded_namespace,
}
"""Return the function that removes each kind of record."""
