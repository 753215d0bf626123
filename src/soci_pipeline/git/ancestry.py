"""Find out whether one commit is an ancestor of another. History is fetched once, on first use; results are cached."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Self

from soci_pipeline.errors import SourceError
from soci_pipeline.git.address import check_url, is_commit
from soci_pipeline.git.program import Git, remote
from soci_pipeline.git.sign_in import GitCredentials

Answers = MutableMapping[tuple[str, str], bool | None]
"""Whether the first commit of a pair is an ancestor of the second; None if the repository does not have both."""


class Ancestry:
    """Context manager that answers ancestry queries for one repository. Not thread-safe.

    ``credentials`` is called when history is fetched. ``answers`` is a cache that is read and extended: pass the same
    mapping to the next instance to reuse its results. Errors are not cached.
    """

    def __init__(
        self, url: str, credentials: Callable[[], GitCredentials | None], *, answers: Answers | None = None
    ) -> None:
        self._url = check_url(url)
        self._credentials = credentials
        self._answers = {} if answers is None else answers
        self._stack = contextlib.ExitStack()
        self._history: tuple[Git, Path] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._history = None
        self._stack.close()

    def __call__(self, older: str, newer: str) -> bool | None:
        """Whether ``older`` is an ancestor of ``newer``; None if that cannot be determined. Raises `SourceError`."""
        if not (is_commit(older) and is_commit(newer)):
            return None
        if (older, newer) not in self._answers:
            self._answers[older, newer] = self._look_up(older, newer)
        return self._answers[older, newer]

    def _look_up(self, older: str, newer: str) -> bool | None:
        git, folder = self._fetched()
        for commit in (older, newer):
            if not git.succeeds("-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"):
                return None
        return git.succeeds("-C", str(folder), "merge-base", "--is-ancestor", older, newer)

    def _fetched(self) -> tuple[Git, Path]:
        if self._history is None:
            with contextlib.ExitStack() as stack:
                git, address = stack.enter_context(remote(self._url, self._credentials()))
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soci-history-")))
                git.history(folder, address)
                self._history = git, folder
                self._stack = stack.pop_all()
        return self._history


class CommitOrder:
    """Open the history of one repository as often as needed, and look up each pair of commits only once.

    ``credentials`` is called when history is fetched, so that an object passed between tasks holds no secret.
    """

    def __init__(self, url: str, credentials: Callable[[], GitCredentials | None]) -> None:
        self._url = url
        self._credentials = credentials
        self._answers: Answers = {}

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Callable[[str, str], bool | None]]:
        """Yield a function that returns whether one commit is an ancestor of another; None if that is unknown.

        A temporary `SourceError` is raised; after a permanent one (the repository is gone) the order is unknown.
        """
        with Ancestry(self._url, self._credentials, answers=self._answers) as ask:

            def is_ancestor(older: str, newer: str) -> bool | None:
                try:
                    return ask(older, newer)
                except SourceError as error:
                    if error.temporary:
                        raise
                    return None

            yield is_ancestor
