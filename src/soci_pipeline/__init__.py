"""Publish multi-architecture, SOCI-indexed container images.

This package is the library: it handles OCI images, SOCI indexes, registries, build tools and AWS, and does not depend
on the orchestrator. The `tasks` and `flows` packages next to it wire the same functions into Prefect.

The names below are the stable API; the modules that define them may change. They are imported on first use. This
example makes an image on disk lazily loadable, pushes it, and reads it back through its index:

```python
from pathlib import Path

from soci_pipeline import ImageReference, Layout, RegistryClient, SociOptions, convert, push_graph, verify

done = convert(Layout.open(Path("image")), Path("indexed"), options=SociOptions(min_layer_size=0))
target = ImageReference.parse("127.0.0.1:5000/shop/web:1.4")
with RegistryClient(target.registry) as client:
    push_graph(done.layout, done.root, client, target.repository, tag=target.tag)
    report = verify(client, target.repository, target.tag)
print(report.ok, report.lazy_bytes, report.total_bytes)
```

Every error that is raised on purpose is a `SociPipelineError` with the cause, the next step, and whether a retry may
succeed.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soci_pipeline.errors import SociPipelineError
    from soci_pipeline.oci.digest import Digest
    from soci_pipeline.oci.layout import Layout
    from soci_pipeline.oci.platform import Platform
    from soci_pipeline.registry.client import RegistryClient
    from soci_pipeline.registry.push import push_graph
    from soci_pipeline.registry.reference import ImageReference
    from soci_pipeline.soci.index.convert import Conversion, convert
    from soci_pipeline.soci.index.records import SociOptions
    from soci_pipeline.soci.ztoc.build import build_ztoc
    from soci_pipeline.verification.verify import VerificationReport, verify

__version__: str  # read from `soci_pipeline._version` on first access

__all__ = [
    "Conversion",
    "Digest",
    "ImageReference",
    "Layout",
    "Platform",
    "RegistryClient",
    "SociOptions",
    "SociPipelineError",
    "VerificationReport",
    "build_ztoc",
    "convert",
    "push_graph",
    "verify",
]

_MODULES = {
    "Conversion": "soci.index.convert",
    "Digest": "oci.digest",
    "ImageReference": "registry.reference",
    "Layout": "oci.layout",
    "Platform": "oci.platform",
    "RegistryClient": "registry.client",
    "SociOptions": "soci.index.records",
    "SociPipelineError": "errors",
    "VerificationReport": "verification.verify",
    "build_ztoc": "soci.ztoc.build",
    "convert": "soci.index.convert",
    "push_graph": "registry.push",
    "verify": "verification.verify",
}


def __getattr__(name: str) -> object:
    """Import a public name on first access (PEP 562)."""
    module = "_version" if name == "__version__" else _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
