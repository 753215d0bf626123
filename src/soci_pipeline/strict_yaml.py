"""YAML for hand-written files: duplicate keys are errors, and only true and false are booleans."""

import contextlib
import json
import math
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_BOOL = "tag:yaml.org,2002:bool"
_FLOAT = "tag:yaml.org,2002:float"
_NOT_JSON = {
    "tag:yaml.org,2002:timestamp": "a date or time",
    "tag:yaml.org,2002:binary": "binary data",
    "tag:yaml.org,2002:set": "a set",
    "tag:yaml.org,2002:omap": "an ordered mapping",
    "tag:yaml.org,2002:pairs": "a list of pairs",
}
_LONGEST_VALUE = 80
Place = tuple[int | str, ...]


class StrictLoader(yaml.SafeLoader):
    """A YAML loader in which duplicate keys are errors and ``on`` is a string.

    Only true and false are booleans, as in YAML 1.2 (10.3.2, "Tag Resolution"); 1.1 accepts on, off, yes and no too.
    """

    yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; raise `yaml.MarkedYAMLError` for a duplicate key."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            if key in seen:
                problem = f"duplicate key {key!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; raises `yaml.MarkedYAMLError` for a value that JSON does not have, with its key."""
        node: yaml.Node | None = super().compose_node(parent, index)
        if node is not None and (problem := self._not_json(node, index)):
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return node

    def _not_json(self, node: yaml.Node, index: Any) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _FLOAT:
            return None if math.isfinite(self.construct_yaml_float(node)) else f"{node.value} is not a finite number"
        kind = _NOT_JSON.get(node.tag)
        if kind is None:
            return None
        # In a mapping the index is the node of the key; in a list it is the item's number.
        where = f"{index.value[:_LONGEST_VALUE]}: " if isinstance(index, yaml.ScalarNode) else ""
        if node.tag.endswith(":timestamp"):
            shown = str(node.value)[:_LONGEST_VALUE]
            return f"{where}{shown} is {kind}, which JSON does not support; write it as a string: '{shown}'"
        # Binary data may be a secret, so it is not repeated.
        return f"{where}the value is {kind} (!!{node.tag.rpartition(':')[2]}), which JSON does not support"


StrictLoader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF"))


class _WithoutAliases(StrictLoader):
    """Rejects aliases: a few lines with them can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; raises `yaml.MarkedYAMLError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            event: yaml.AliasEvent = self.peek_event()  # type: ignore[no-untyped-call]
            problem = f"the alias *{event.anchor} is not supported; repeat the value, or use `defaults`"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)  # type: ignore[arg-type]
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class Located:
    """A YAML document, with the line of each of its keys and items."""

    value: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Return the line of a place, or of its nearest existing parent."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def parse_located(text: str) -> Located:
    """Parse one document without aliases; raise `yaml.YAMLError`, or ValueError for what cannot be represented."""
    loader = _WithoutAliases(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Located(None, {})
        return Located(loader.construct_document(node), dict(_lines(node, ())))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    finally:
        loader.dispose()


def parse_text(text: str) -> Any:
    """Parse a JSON or YAML document without aliases and duplicate keys; raises as `parse_located`.

    JSON may be indented with tabs, and may use surrogate pairs in its escapes; YAML supports neither.
    """
    if text.lstrip().startswith("{"):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            return json.loads(text, object_pairs_hook=_once, parse_constant=_not_finite)
    return parse_located(text).value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise yaml.composer.ComposerError(None, None, f"duplicate key {twice!r}")
    return found


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")


def fault_of(error: yaml.YAMLError) -> str:
    """Describe a YAML error, with its line if known."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason} (character {error.position + 1} of the file)"
    return str(error)


def _lines(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            inner = (*place, number)
            yield inner, item.start_mark.line + 1
            yield from _lines(item, inner)
