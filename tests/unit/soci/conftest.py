"""Both engines: the tests of this folder that take ``zlib_engine`` run with the system's zlib."""

from collections.abc import Iterator

import pytest

from soci_pipeline.soci import inflate


@pytest.fixture
def zlib_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(inflate.ENGINE_VARIABLE, "zlib")
    inflate.engine.cache_clear()
    yield inflate.engine().name
    inflate.engine.cache_clear()
