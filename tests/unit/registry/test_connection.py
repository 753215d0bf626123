"""The connection to a registry: TLS, and where plain HTTP is the default."""

from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import (
    RegistryUnreachable,
)
from soci_pipeline.registry.server import ServerSettings, serving
from tests.support.certificates import certificate
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, push_image


def test_tls_takes_an_own_authority_and_refuses_an_unknown_one(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    with serving(tmp_path / "r", tls_cert=own.certificate, tls_key=own.key) as address:
        with RegistryClient(address, settings=QUICK, ca_file=own.certificate) as client:
            push_image(client, "v1")
        with RegistryClient(address, settings=QUICK, plain_http=False) as client:
            with pytest.raises(RegistryUnreachable, match="CERTIFICATE_VERIFY_FAILED") as caught:
                client.ping()
            assert not caught.value.temporary


def test_bearer_over_tls_takes_the_realm_of_its_own_host(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    settings = ServerSettings(login=LOGIN)
    with (
        serving(tmp_path / "r", tls_cert=own.certificate, tls_key=own.key, settings=settings) as address,
        RegistryClient(address, settings=QUICK, ca_file=own.certificate, credentials=CREDENTIALS) as client,
    ):
        push_image(client, "v1")


def test_a_file_that_holds_no_certificates_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(InvalidInput, match=r"ca\.pem"):
        RegistryClient("r.example.com", ca_file=tmp_path / "ca.pem")


def test_beyond_loopback_tls_is_the_default() -> None:
    with RegistryClient("r.example.com") as client, RegistryClient("r.example.com", plain_http=True) as plain:
        assert (client._transport.base.scheme, plain._transport.base.scheme) == ("https", "http")
    with RegistryClient("localhost:5000") as local, RegistryClient("docker.io") as hub:
        assert local._transport.base.scheme == "http"
        assert hub._transport.base.host == "registry-1.docker.io"
