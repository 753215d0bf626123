"""Access scopes of the token protocol (distribution, spec/auth/scope.md)."""

from collections.abc import Iterable


def pull(repository: str) -> frozenset[str]:
    """What reading a repository needs."""
    return frozenset({f"repository:{repository}:pull"})


def push(repository: str) -> frozenset[str]:
    """What writing to a repository needs."""
    return frozenset({f"repository:{repository}:pull,push"})


def delete(repository: str) -> frozenset[str]:
    """What deleting in a repository needs."""
    return frozenset({f"repository:{repository}:delete,pull"})


def object_of(scopes: Iterable[str]) -> tuple[str, str] | None:
    """What a call with these scopes does to which repository: ``delete``, ``push`` or else ``pull``; None for none."""
    actions = {resource: wanted.split(",") for resource, _, wanted in (scope.rpartition(":") for scope in scopes)}
    for action in ("delete", "push", "pull"):
        for resource in sorted(actions):
            if action in actions[resource]:
                return action, resource.removeprefix("repository:")
    return None


def merged(scopes: Iterable[str]) -> tuple[str, ...]:
    """One scope for each resource, with the actions of all; sorted."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, _, wanted = scope.rpartition(":")
        actions.setdefault(resource, set()).update(wanted.split(","))
    return tuple(f"{resource}:{','.join(sorted(wanted))}" for resource, wanted in sorted(actions.items()))


def as_written(scopes: Iterable[str], written: str) -> tuple[str, ...]:
    """The scopes of `merged`, each as ``written`` (a challenge's ``scope``) spells it where it holds the same actions.

    Some token servers compare the text, so the order of the actions counts.
    """
    spellings = {merged({scope})[0]: scope for scope in written.split() if scope.count(":") > 1}
    return tuple(spellings.get(scope, scope) for scope in merged(scopes))
