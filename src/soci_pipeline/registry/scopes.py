"""Access scopes of the token protocol (distribution, spec/auth/scope.md)."""

from collections.abc import Iterable


def pull(repository: str) -> frozenset[str]:
    """Return the scope for reading from a repository."""
    return frozenset({f"repository:{repository}:pull"})


def push(repository: str) -> frozenset[str]:
    """Return the scope for writing to a repository."""
    return frozenset({f"repository:{repository}:pull,push"})


def delete(repository: str) -> frozenset[str]:
    """Return the scope for deleting from a repository."""
    return frozenset({f"repository:{repository}:delete,pull"})


def object_of(scopes: Iterable[str]) -> tuple[str, str] | None:
    """Return the strongest action (``delete``, ``push``, ``pull``) in these scopes and its repository, or None."""
    actions = {resource: wanted.split(",") for resource, _, wanted in (scope.rpartition(":") for scope in scopes)}
    for action in ("delete", "push", "pull"):
        for resource in sorted(actions):
            if action in actions[resource]:
                return action, resource.removeprefix("repository:")
    return None


def merged(scopes: Iterable[str]) -> tuple[str, ...]:
    """Merge the scopes into one per resource, with resources and actions sorted."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, _, wanted = scope.rpartition(":")
        actions.setdefault(resource, set()).update(wanted.split(","))
    return tuple(f"{resource}:{','.join(sorted(wanted))}" for resource, wanted in sorted(actions.items()))


def as_written(scopes: Iterable[str], written: str) -> tuple[str, ...]:
    """Return the scopes of `merged`, each spelled as in ``written`` (a challenge's ``scope``) if the actions are equal.

    Some token servers compare scopes as strings, so the order of the actions matters.
    """
    spellings = {merged({scope})[0]: scope for scope in written.split() if scope.count(":") > 1}
    return tuple(spellings.get(scope, scope) for scope in merged(scopes))
