"""Upload sessions: a file that grows, with the hash of what it holds, until it is put in place under its digest.

A session lives in the repository's folder, so a restarted server finds it again. A newer request on a session ends the
older one: a client that lost its connection must not race against what is left of it.
"""

import asyncio
import errno
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.registry.server.answers import Refusal
from soci_pipeline.registry.server.storage import UPLOADS, Repository

_ID = re.compile(r"[0-9a-f]{32}\Z")
_BUFFER = 1 << 20


class Session:
    """One upload in progress."""

    def __init__(self, repository: Repository, name: str) -> None:
        self.repository = repository
        self.name = name
        self.path = repository.layout.path / UPLOADS / name
        self.offset = 0
        self.ended_short = False
        self._hash = hashlib.sha256()
        self._turn = 0
        self._lock = asyncio.Lock()

    async def settle(self) -> int:
        """End what an earlier request still writes; the number of bytes that were taken."""
        self._turn += 1
        async with self._lock:
            return self.offset

    async def append(self, body: AsyncIterator[bytes]) -> None:
        """Write a request's body to the end. What came before a cut stays."""
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
                    # The next piece is received while this one is hashed and written.
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(buffer, turn))
                    buffer, held = [], 0
        finally:
            if writing is not None:
                await writing
            await self._write(buffer, turn)

    async def _write(self, pieces: list[bytes], turn: int) -> None:
        async with self._lock:
            if turn != self._turn:
                raise Refusal("BLOB_UPLOAD_INVALID", "another request took over this upload", status=409)
            if pieces:
                await asyncio.to_thread(self._write_now, pieces)

    def _write_now(self, pieces: list[bytes]) -> None:
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(self.offset)
                for piece in pieces:
                    file.write(piece)
                    self._hash.update(piece)
                    self.offset += len(piece)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Refusal("BLOB_UPLOAD_INVALID", "no space left on the registry's disk", status=507) from error
            raise

    def read_back(self) -> None:
        """Take up a session that an earlier process began."""
        with self.path.open("rb") as file:
            while piece := file.read(_BUFFER):
                self._hash.update(piece)
                self.offset += len(piece)

    def finish(self, digest: Digest) -> None:
        """Put the blob in place; raises `Refusal` where its bytes do not hash to that digest."""
        found = self._digest(digest.algorithm)
        if found != digest:
            raise Refusal("DIGEST_INVALID", f"the upload hashes to {found}")
        self.path.chmod(0o444)
        place = self.repository.layout.blob_path(digest)
        place.parent.mkdir(exist_ok=True)
        self.path.rename(place)

    def _digest(self, algorithm: str) -> Digest:
        if algorithm == SHA256:
            return Digest(f"{SHA256}:{self._hash.hexdigest()}")
        # Which algorithm is meant is said at the end alone, and hardly ever another one.
        with self.path.open("rb") as file:
            return Digest.of_stream(file, algorithm)

    def cancel(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)


class Uploads:
    """The sessions of one server."""

    def __init__(self) -> None:
        self._open: dict[tuple[Path, str], Session] = {}

    def start(self, repository: Repository) -> Session:
        """Begin an upload."""
        session = Session(repository, uuid.uuid4().hex)
        session.path.parent.mkdir(exist_ok=True)
        os.close(os.open(session.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._open[repository.layout.path, session.name] = session
        return session

    def find(self, repository: Repository | None, name: str) -> Session:
        """An upload in progress; raises `Refusal` where there is none of that name."""
        if repository is None or not _ID.match(name):
            raise Refusal("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        key = (repository.layout.path, name)
        session = self._open.get(key)
        if session is None:
            session = Session(repository, name)
            if not session.path.exists():
                raise Refusal("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
            session.read_back()
            self._open[key] = session
        return session

    def forget(self, session: Session) -> None:
        """The session came to its end, one way or the other."""
        session.cancel()
        self._open.pop((session.repository.layout.path, session.name), None)
