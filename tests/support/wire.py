"""The embedded registry at the HTTP level: plain requests, without our client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from starlette.types import ASGIApp

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.registry.server import ServerSettings, serving

NAME = "team/app"
API = f"/v2/{NAME}"
CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = b"a layer, as far as a registry can tell"


@contextmanager
def wire(
    folder: Path,
    *,
    settings: ServerSettings | None = None,
    middleware: Callable[[ASGIApp], ASGIApp] | None = None,
) -> Iterator[httpx.Client]:
    with (
        serving(folder, settings=settings, middleware=middleware) as address,
        httpx.Client(base_url=f"http://{address}", trust_env=False, verify=False, timeout=10) as http,
    ):
        yield http


def start(http: httpx.Client, name: str = NAME) -> str:
    """Open an upload session; return its location."""
    answer = http.post(f"/v2/{name}/blobs/uploads/")
    assert answer.status_code == 202
    return answer.headers["location"]


def put_blob(http: httpx.Client, data: bytes, name: str = NAME) -> Digest:
    digest = Digest.of(data)
    answer = http.put(start(http, name), params={"digest": digest}, content=data)
    assert answer.status_code == 201, answer.text
    return digest


def manifest_of(*layers: bytes, subject: Descriptor | None = None, artifact_type: str = "") -> ImageManifest:
    return ImageManifest(
        config=Descriptor(media_type=OCI_CONFIG, digest=Digest.of(CONFIG), size=len(CONFIG)),
        layers=tuple(Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(data), size=len(data)) for data in layers),
        subject=subject,
        artifact_type=artifact_type,
    )


def put_document(
    http: httpx.Client, document: ImageManifest | ImageIndex, reference: str | None = None, name: str = NAME
) -> httpx.Response:
    return http.put(
        f"/v2/{name}/manifests/{reference or document.descriptor.digest}",
        content=document.encode(),
        headers={"Content-Type": document.media_type},
    )


def put_image(http: httpx.Client, reference: str | None = None, name: str = NAME, layer: bytes = LAYER) -> Descriptor:
    put_blob(http, CONFIG, name)
    put_blob(http, layer, name)
    document = manifest_of(layer)
    answer = put_document(http, document, reference, name)
    assert answer.status_code == 201, answer.text
    return document.descriptor


def code_of(answer: httpx.Response) -> str:
    code: str = answer.json()["errors"][0]["code"]
    return code
