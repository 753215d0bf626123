"""A layout in which images are made, and a registry that shows what it has stored."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.client import RegistryClient
from tests.support.published import REPOSITORY, registry


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def kept(client: RegistryClient, tmp_path: Path) -> Layout:
    """What the registry has stored; it appears with the first push."""
    return Layout(tmp_path / "registry" / REPOSITORY.replace("/", "+"))
