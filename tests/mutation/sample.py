"""Choose the mutants of a module that are worth a run of its tests.

Left out are those that say nothing about the tests: in annotations, in type aliases, in the decorators of classes and
in what is logged, and those that replace ``==`` with ``is`` or the other way round, which are the same for the
constants and enumerations that this project compares so. cosmic-ray also takes the star of a list of parameters for a
product, and cannot replace an exception with a dotted name.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Position = tuple[int, int]
"""A line, from 1, and a column, from 0."""

Range = tuple[Position, Position]

_BINARY = "core/ReplaceBinaryOperator"
_SAME_OPERATORS = frozenset({("Eq", "Is"), ("Is", "Eq"), ("NotEq", "IsNot"), ("IsNot", "NotEq")})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to a module: the occurrence of an operator of cosmic-ray, and the place that it changes."""

    operator: str
    occurrence: int
    start: Position
    end: Position


def sample(source: str, mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """At most ``count`` mutants, the same ones each time; a second one of a place only after one of every place.

    The order comes from what a mutant changes, so that a change to one line hardly affects the choice in the others.
    """
    lines = source.splitlines()
    tree = ast.parse(source)
    noise, operators = list(_noise(tree)), list(_operators(tree))
    drawn = sorted(
        (each for each in mutants if _says_something(each, noise, operators)),
        key=lambda each: _lot(each, lines[each.start[0] - 1], seed),
    )
    seen: dict[tuple[str, Position, Position], int] = {}
    turns = []
    for each in drawn:
        place = (_family(each), each.start, each.end)
        seen[place] = seen.get(place, 0) + 1
        turns.append(seen[place])
    order = sorted(range(len(drawn)), key=lambda number: turns[number])
    return [drawn[number] for number in order[:count]]


def _lot(mutant: Mutant, line: str, seed: int) -> bytes:
    what = f"{seed} {mutant.operator} {mutant.start[1]} {mutant.end[1]} {line}"
    return hashlib.sha256(what.encode()).digest()


def _family(mutant: Mutant) -> str:
    """The operator without what it replaces by what."""
    return mutant.operator.partition("_")[0]


def _says_something(mutant: Mutant, noise: Sequence[Range], operators: Sequence[Range]) -> bool:
    if tuple(mutant.operator.split("_")[1:]) in _SAME_OPERATORS:
        return False
    if _family(mutant) == _BINARY and not _is_within(mutant, operators):
        return False
    return not _is_within(mutant, noise)


def _is_within(mutant: Mutant, ranges: Sequence[Range]) -> bool:
    return any(start <= mutant.start and mutant.end <= end for start, end in ranges)


def _operators(tree: ast.AST) -> Iterator[Range]:
    """What is between the two sides of each operation."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            left, right = node.left, node.right
            yield (left.end_lineno or 0, left.end_col_offset or 0), (right.lineno, right.col_offset)


def _noise(tree: ast.AST) -> Iterator[Range]:
    """Where mutants are left out: from here to there."""
    for node in ast.walk(tree):
        for each in _noisy_parts(node):
            yield (each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)


def _noisy_parts(node: ast.AST) -> Sequence[ast.expr]:
    match node:
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            return [annotation]
        case ast.FunctionDef(returns=ast.expr() as returns) | ast.AsyncFunctionDef(returns=ast.expr() as returns):
            return [returns]
        case ast.ClassDef(decorator_list=decorators):
            return decorators
        case ast.BinOp(op=ast.BitOr(), left=left, right=right) if _is_none(left) or _is_none(right):
            return [node]
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="logger")))):
            return [node]
        case ast.keyword(arg="frozen" | "slots", value=value):
            return [value]
        case ast.ExceptHandler(type=ast.expr() as caught):
            return [each for each in ast.walk(caught) if isinstance(each, ast.Attribute)]
        case _:
            return []


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
