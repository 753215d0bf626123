"""Upload sessions: a file that grows until it is moved to its place as a blob.

Sessions are stored in the repository's folder, so they survive a restart of the server. A newer request on a session
ends the older one, so that a client that lost its connection does not race against its old request.
"""

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from soci_pipeline.errors import DiskFull
from soci_pipeline.full_disk import write_all
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.server.answers import Refusal
from soci_pipeline.registry.server.files import full_disk_reported
from soci_pipeline.registry.server.repository import UPLOADS, Repository

_ID = re.compile(r"[0-9a-f]{32}\Z")
_BUFFER = 1 << 20


class Session:
    """An upload in progress; ``offset`` is the number of bytes written to the disk."""

    def __init__(self, repository: Repository, name: str, *, offset: int = 0) -> None:
        self.repository = repository
        self.name = name
        self.path = repository.layout.path / UPLOADS / name
        self.offset = offset
        self._turn = 0
        self._lock = asyncio.Lock()

    async def settle(self) -> int:
        """Stop the writes of earlier requests; return the number of bytes written."""
        self._turn += 1
        async with self._lock:
            return self.offset

    async def append(self, body: AsyncIterator[bytes]) -> None:
        """Append a request's body; bytes received before a lost connection are kept. Raises `DiskFull`, `Refusal`."""
        await self.settle()
        turn = self._turn
        buffer: list[bytes] = []
        held = 0
        writing: asyncio.Task[None] | None = None
        try:
            async for chunk in body:
                buffer.append(chunk)
                held += len(chunk)
                if held >= _BUFFER:
                    # Receive the next piece while this one is written.
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(buffer, turn))
                    buffer, held = [], 0
        finally:
            if writing is not None:
                await writing
            await self._write(buffer, turn)

    async def finish(self, digest: Digest) -> None:
        """Move the file to its place as a blob; raise `Refusal` if its bytes do not match the digest."""
        async with self._lock:
            await asyncio.to_thread(self._finish_now, digest)

    async def _write(self, pieces: list[bytes], turn: int) -> None:
        async with self._lock:
            if turn != self._turn:
                raise Refusal("BLOB_UPLOAD_INVALID", "another request took over this upload", status=409)
            if pieces:
                await asyncio.to_thread(self._write_now, b"".join(pieces))

    def _write_now(self, data: bytes) -> None:
        try:
            with full_disk_reported(self.path.parent), self.path.open("r+b", buffering=0) as file:
                file.seek(self.offset)
                write_all(file, data)
        except FileNotFoundError as error:
            raise _unknown() from error
        self.offset += len(data)

    def _finish_now(self, digest: Digest) -> None:
        try:
            self.repository.place_blob(self.path, digest, self.offset)
        except FileNotFoundError as error:
            raise _unknown() from error

    def cancel(self) -> None:
        """Delete the session's file."""
        self.path.unlink(missing_ok=True)


class Uploads:
    """The upload sessions of one server."""

    def __init__(self) -> None:
        self._open: dict[tuple[Path, str], Session] = {}

    def start(self, repository: Repository) -> Session:
        """Start an upload session; raise `DiskFull`."""
        session = Session(repository, uuid.uuid4().hex)
        with full_disk_reported(repository.layout.path):
            session.path.parent.mkdir(exist_ok=True)
            os.close(os.open(session.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._open[repository.layout.path, session.name] = session
        return session

    def find(self, repository: Repository | None, name: str) -> Session:
        """Return an upload session, also one of an earlier server process; raise `Refusal` if it does not exist."""
        if repository is None or not _ID.match(name):
            raise _unknown()
        key = (repository.layout.path, name)
        size = _size(repository.layout.path / UPLOADS / name)
        if size is None:
            self._open.pop(key, None)
            raise _unknown()
        return self._open.setdefault(key, Session(repository, name, offset=size))

    async def append(self, session: Session, body: AsyncIterator[bytes]) -> None:
        """Append a request's body; if the disk is full, cancel the upload, which frees its space."""
        try:
            await session.append(body)
        except DiskFull:
            self.forget(session)
            raise

    def forget(self, session: Session) -> None:
        """Remove a session that has ended, with its file."""
        session.cancel()
        self._open.pop((session.repository.layout.path, session.name), None)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _unknown() -> Refusal:
    return Refusal("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
