"""Embedded registries and clients for tests: real HTTP over loopback, with waits short enough for a unit test."""

import io
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.registry.auth import CredentialProvider, Credentials, FixedCredentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import Login, ServerSettings, serving
from soci_pipeline.registry.settings import ClientSettings
from tests.support.faults import Fault, FaultPlan
from tests.support.older_registry import OlderRegistry

REPOSITORY = "team/app"
LOGIN = Login("robot", SecretStr("opensesame"), bearer=True)
CREDENTIALS = FixedCredentials(Credentials("robot", SecretStr("opensesame")))
QUICK = ClientSettings(
    attempts=4,
    deadline=15.0,
    backoff_base=0.002,
    backoff_cap=0.02,
    connect_timeout=2.0,
    read_timeout=5.0,
    part_size=256 << 10,
    read_size=64 << 10,
    settle_time=2.0,
)
# For tests that delete or damage what was pushed: a missing manifest is reported at once, without waiting.
AT_ONCE = replace(QUICK, settle_time=0)


@pytest.fixture(params=[True, False], ids=["referrers API", "fallback tag"])
def with_and_without_referrers(request: pytest.FixtureRequest) -> bool:
    """Assign it to ``referrers_api`` in a module whose tests must pass on both kinds of registry."""
    supported: bool = request.param
    return supported


@contextmanager
def registry(
    folder: Path,
    *,
    faults: FaultPlan | Iterable[Fault] | None = None,
    server: ServerSettings | None = None,
    older: OlderRegistry | None = None,
    referrers: bool | None = None,
    settings: ClientSettings = QUICK,
    credentials: CredentialProvider | None = None,
) -> Iterator[RegistryClient]:
    """Yield a client of an embedded registry that serves ``folder``.

    ``older`` has the features that it lacks, ``referrers`` overrides whether ``server`` has the referrers API.
    """
    chosen = server or ServerSettings()
    if referrers is not None:
        chosen = replace(chosen, referrers=referrers)
    lacking = older or OlderRegistry()
    plan = FaultPlan(faults) if faults is not None and not isinstance(faults, FaultPlan) else faults
    faulty = plan.middleware if plan is not None else _unchanged
    with (
        serving(folder, middleware=lambda app: faulty(lacking.middleware(app)), settings=chosen) as address,
        RegistryClient(address, settings=settings, credentials=credentials) as client,
    ):
        yield client


def _unchanged(app: ASGIApp) -> ASGIApp:
    return app


def shown(login: Credentials | None) -> str | None:
    """Format a login for comparison: ``user:password`` or its token; None if there is none."""
    if login is None:
        return None
    for kind, token in (("identity", login.identity_token), ("registry", login.registry_token)):
        if token is not None:
            return f"{kind} token {token.get_secret_value()}"
    assert login.password is not None
    return f"{login.username}:{login.password.get_secret_value()}"


def noise(size: int, seed: int = 1) -> bytes:
    """Return incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def described(data: bytes, media_type: str = OCI_LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


def upload(
    client: RegistryClient, data: bytes, media_type: str = OCI_LAYER_GZIP, *, to: str = REPOSITORY
) -> Descriptor:
    descriptor = described(data, media_type)
    client.blobs.upload(to, descriptor, lambda: io.BytesIO(data))
    return descriptor


def push_image(
    client: RegistryClient, tag: str | None = None, *, to: str = REPOSITORY, seed: int = 1, size: int = 2000
) -> tuple[Descriptor, ImageManifest]:
    """Push a small image: a config, one layer, and the manifest under its digest or the tag."""
    config = upload(client, b'{"architecture":"amd64","os":"linux"}', OCI_CONFIG, to=to)
    manifest = ImageManifest(config=config, layers=(upload(client, noise(size, seed), to=to),))
    reference = tag or manifest.descriptor.digest
    return client.manifests.put(to, reference, manifest.encode(), manifest.media_type), manifest


def leftovers(folder: Path, repository: str = "*") -> list[Path]:
    """Return upload sessions and temporary files that a registry still holds."""
    place = repository.replace("/", "+")
    return [path for name in (".uploads", ".incoming") for path in folder.glob(f"{place}/{name}/*")]
