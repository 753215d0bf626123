"""Resources that are started once for a whole test run and used by all its pytest processes.

The first process that needs one starts it and writes its description to a file; the others read that. The starter keeps
it until every other process has released it, and stops it in `close`, which runs when a process has no tests left.
"""

import fcntl
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar, cast

_Started = TypeVar("_Started")
_POLL_SECONDS = 0.2


class OncePerRun:
    """The shared resources of one test run, kept in a folder that all its processes can access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = ExitStack()
        self._known: dict[str, object] = {}

    def get(self, name: str, start: Callable[[Path], AbstractContextManager[_Started]]) -> _Started:
        """Return the resource of this name; ``start`` starts it in its own folder unless a process has done so.

        What it yields must be picklable. Raises what ``start`` raises; the next process then tries again.
        """
        if name not in self._known:
            self._known[name] = self._held.enter_context(self._shared(name, start))
        return cast("_Started", self._known[name])

    def close(self) -> None:
        """Release everything, and stop what this process has started once no other process uses it."""
        self._known.clear()
        self._held.close()

    @contextmanager
    def _shared(self, name: str, start: Callable[[Path], AbstractContextManager[_Started]]) -> Iterator[_Started]:
        place = self._folder / "once" / name
        place.mkdir(parents=True, exist_ok=True)
        description = place / "description"
        with ExitStack() as mine:
            with _locked(place / "start.lock"):
                started = description.exists()
                if started:
                    value = cast("_Started", pickle.loads(description.read_bytes()))
                    mine.enter_context(_locked(place / "users.lock", shared=True))
                else:
                    value = mine.enter_context(start(place / "files"))
                    description.write_bytes(pickle.dumps(value))
            yield value
            if not started:
                _wait_for_the_others(place)


def _wait_for_the_others(place: Path) -> None:
    while True:
        # Under the starters' lock, so that no process starts to use what is about to end.
        with _locked(place / "start.lock"), (place / "users.lock").open("a") as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                (place / "description").unlink()
                return
        time.sleep(_POLL_SECONDS)


@contextmanager
def _locked(file: Path, *, shared: bool = False) -> Iterator[None]:
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
