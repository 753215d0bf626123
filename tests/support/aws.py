"""AWS for tests: the emulator over HTTP, and a server with predefined responses.

The emulator's tokens expired in 2015 and it rejects nobody, so tests of lifetimes and rejections use the other server.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms.utils import ECDSAPrivateKey, RSAPrivateKey
from moto.server import ThreadedMotoServer

from soci_pipeline.oci.digest import Digest

ACCOUNT = "123456789012"
REGION = "eu-west-1"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


def give_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set keys that nobody checks, and disable all other sources."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # boto3's default session would keep the credentials of an earlier test.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@contextmanager
def emulator() -> Iterator[str]:
    """Yield the URL of an emulated AWS in this process, where tests can patch it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def sign_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the emulated KMS sign a digest as it is; it hashes the digest again (getmoto/moto#10202)."""

    def prehashed(signing_algorithm: str) -> Prehashed:
        return Prehashed(
            {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[signing_algorithm[-3:]]
        )

    def sign_ecdsa(key: ECDSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        return key.private_key.sign(message, ec.ECDSA(prehashed(signing_algorithm)))

    def sign_rsa(key: RSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        return key.private_key.sign(message, padding.PKCS1v15(), prehashed(signing_algorithm))

    monkeypatch.setattr(ECDSAPrivateKey, "sign", sign_ecdsa)
    monkeypatch.setattr(RSAPrivateKey, "sign", sign_rsa)


def unique(word: str) -> str:
    """Return a name that no other test uses: the emulator keeps what other tests create."""
    return f"{word}-{uuid4().hex[:10]}"


def reset(address: str) -> None:
    """Empty the emulated account."""
    httpx.post(f"{address}/moto-api/reset", timeout=300).raise_for_status()


def put_image(ecr: Any, repository: str, number: int, *tags: str) -> Digest:
    """Put an image into the emulated ECR with these tags or none; another number gives another image."""
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": "c"},
        # The emulator derives an image's digest from its layers' digests.
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 1, "digest": f"l{number}"}
        ],
    }
    fields: dict[str, Any] = {"repositoryName": repository, "imageManifest": json.dumps(document)}
    answers = [ecr.put_image(**fields, **each) for each in [{"imageTag": tag} for tag in tags] or [{}]]
    return Digest(answers[0]["image"]["imageId"]["imageDigest"])


class Answers(ThreadingHTTPServer):
    """Answers each JSON 1.1 call with the next of ``answers``, repeating the last one; records the calls."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.asked: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next(self) -> tuple[int, dict[str, Any]]:
        with self.lock:
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.headers["X-Amz-Target"].rpartition(".")[2])
        status, body = self.server.next()
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def answering(*answers: tuple[int, dict[str, Any]]) -> Iterator[Answers]:
    """Serve these answers in turn."""
    server = Answers(*answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refusal(code: str, message: str = "no", status: int = 400) -> tuple[int, dict[str, Any]]:
    """Return an AWS error response."""
    return status, {"__type": code, "message": message}


def authorization(password: str = "a-password", *, expires_at: float | None = None) -> tuple[int, dict[str, Any]]:
    """Return ECR's response with a token, valid for twelve hours by default."""
    until = time.time() + 12 * 3600 if expires_at is None else expires_at
    encoded = base64.b64encode(f"AWS:{password}".encode()).decode()
    return 200, {"authorizationData": [{"authorizationToken": encoded, "expiresAt": until}]}


def emulated_password() -> str:
    """The password that the emulated ECR gives for the user AWS, as boto3 itself gets it."""
    (given,) = boto3.client("ecr", region_name=REGION).get_authorization_token()["authorizationData"]
    user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
    assert user == "AWS"
    return password
