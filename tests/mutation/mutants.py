"""Print mutants of a module as JSON: ``python -m tests.mutation.mutants FILE COUNT SEED``.

This runs in the environment that cosmic-ray is in, not in the project's.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutation.sample import Mutant, sample


def all_mutants(source: str) -> Iterator[Mutant]:
    """Every mutant that cosmic-ray's operators can make, without those that need arguments."""
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        operator = get_operator(name)
        if operator.arguments():
            continue
        places = (place for node in nodes for place in operator().mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            yield Mutant(name, occurrence, tuple(start), tuple(end))


def main() -> None:
    """Print the operator and the changed source of each mutant of the sample."""
    source = Path(sys.argv[1]).read_text()
    chosen = sample(source, all_mutants(source), int(sys.argv[2]), int(sys.argv[3]))
    described = [
        {
            "operator": each.operator.removeprefix("core/"),
            "source": mutate_code(source, get_operator(each.operator)(), each.occurrence),
        }
        for each in chosen
    ]
    json.dump(described, sys.stdout)


if __name__ == "__main__":
    main()
