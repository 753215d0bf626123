"""Find free ports on the loopback interface, and wait for servers on them."""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from soci_pipeline.errors import StackError
from soci_pipeline.http_client import HttpClient

LOOPBACK = "127.0.0.1"
_Answer = TypeVar("_Answer")


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether an HTTP server at ``url`` responds with success or with 401."""
    try:
        with HttpClient(timeout=5, trust_env=False) as client:
            response = client.get(url)
    except httpx.HTTPError:
        return False
    return response.is_success or response.status_code == httpx.codes.UNAUTHORIZED


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def wait_until(
    ready: Callable[[], _Answer | None], *, what: str, child: subprocess.Popen[bytes], log: Path, seconds: float
) -> _Answer:
    """Wait until a started program is ready; return the result of ``ready``.

    Raises `StackError` with the last lines of its log if it ends, or is not ready after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < deadline:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.1)
    state = "ended while starting" if child.poll() is not None else f"was not ready within {seconds:g} s"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
    raise StackError(f"{what} {state}\n{tail}".rstrip(), advice=f"Its whole log is {log}.")
