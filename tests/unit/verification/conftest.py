"""A layout in which images are made, and a registry that shows what it has stored."""

from pathlib import Path

import pytest

from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.client import RegistryClient
from tests.support.published import REPOSITORY


@pytest.fixture
def kept(client: RegistryClient, tmp_path: Path) -> Layout:
    """What the registry has stored; it appears with the first push."""
    return Layout(tmp_path / "registry" / REPOSITORY.replace("/", "+"))
