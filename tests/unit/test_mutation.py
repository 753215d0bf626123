"""Which mutants are drawn, and that what `tests/mutation/modules.py` names is there."""

from pathlib import Path

import pytest

from tests.mutation.modules import EXPLAINED, MODULES, Explained
from tests.mutation.sample import Mutant, sample

REPOSITORY = Path(__file__).resolve().parents[2]
_SUM = "core/ReplaceBinaryOperator_Add_Sub"
_OR = "core/ReplaceBinaryOperator_BitOr_Add"


def _at(source: str, text: str, operator: str = _SUM) -> Mutant:
    """A mutant of the only place where a text is."""
    assert source.count(text) == 1
    before = source[: source.index(text)]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)
    return Mutant(operator, 0, (line, column), (line, column + len(text)))


def _is_drawn(source: str, text: str, operator: str = _SUM) -> bool:
    return len(sample(source, [_at(source, text, operator)], 40, 0)) == 1


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def f(a: int | str) -> int: return a\n", "|"),
        ("def f(a: int) -> int | str: return a\n", "|"),
        ("class A:\n    a: int | str\n", "|"),
        ("Name = str | None\n", "|"),
        ("Name = Callable[[str], bool | None]\n", "|"),
    ],
)
def test_no_mutant_of_a_type_is_drawn(source: str, text: str) -> None:
    assert not _is_drawn(source, text, _OR)


@pytest.mark.parametrize(
    ("source", "text", "operator"),
    [
        ("@dataclass(frozen=True)\nclass A:\n    a: int\n", "True", "core/ReplaceTrueWithFalse"),
        ("logger().info('%d', 1 + a)\n", "+", _SUM),
        ("class A:\n    model_config = ConfigDict(frozen=True)\n", "True", "core/ReplaceTrueWithFalse"),
        ("def f(*, a: int) -> int: return a\n", "*", "core/ReplaceBinaryOperator_Mul_Div"),
        ("f(**a)\n", "**", "core/ReplaceBinaryOperator_Pow_Div"),
        ("while a is b: c()\n", "is", "core/ReplaceComparisonOperator_Is_Eq"),
        ("while a == b: c()\n", "==", "core/ReplaceComparisonOperator_Eq_Is"),
        ("try: a()\nexcept b.C: d()\n", "b", "core/ExceptionReplacer"),
    ],
)
def test_no_mutant_that_no_test_should_notice_is_drawn(source: str, text: str, operator: str) -> None:
    assert not _is_drawn(source, text, operator)


@pytest.mark.parametrize(
    ("source", "text", "operator"),
    [
        ("def f(a: int = 1 + b) -> int: return a\n", "+", _SUM),
        ("a = b | c\n", "|", _OR),
        ("f(*(a + b))\n", "+", _SUM),
        ("@property\ndef f(): return 1\n", "@property", "core/RemoveDecorator"),
        ("while a == b: c()\n", "==", "core/ReplaceComparisonOperator_Eq_Lt"),
        ("try: a()\nexcept B: d()\n", "B", "core/ExceptionReplacer"),
    ],
)
def test_a_mutant_of_what_the_code_does_is_drawn(source: str, text: str, operator: str) -> None:
    assert _is_drawn(source, text, operator)


def _of_each_place(source: str) -> list[Mutant]:
    """Three mutants of every sum, and nothing of a place twice in a row."""
    lines = source.splitlines()
    return [
        Mutant(f"core/ReplaceBinaryOperator_Add_{other}", number, (number + 1, at), (number + 1, at + 1))
        for other in ("Sub", "Mul", "Div")
        for number, line in enumerate(lines)
        if (at := line.find("+")) >= 0
    ]


def test_every_place_is_changed_once_before_one_is_changed_again() -> None:
    source = "".join(f"a{number} = b + c\n" for number in range(10))
    drawn = sample(source, _of_each_place(source), 15, 0)
    assert len(drawn) == 15
    assert len({each.start for each in drawn[:10]}) == 10


def test_the_same_mutants_are_drawn_each_time_and_others_with_another_seed() -> None:
    source = "".join(f"a{number} = b + c\n" for number in range(50))
    mutants = _of_each_place(source)
    assert sample(source, mutants, 20, 0) == sample(source, mutants[::-1], 20, 0)
    assert sample(source, mutants, 20, 0) != sample(source, mutants, 20, 1)


def test_a_line_more_changes_nothing_about_the_others() -> None:
    source = "".join(f"a{number} = b + c\n" for number in range(50))
    longer = "# a comment\n" + source

    def drawn(text: str) -> list[str]:
        return [text.splitlines()[each.start[0] - 1] for each in sample(text, _of_each_place(text), 20, 0)]

    assert drawn(longer) == drawn(source)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_and_the_tests_that_cover_it_exist(module: str) -> None:
    assert (REPOSITORY / "src" / "soci_pipeline" / f"{module}.py").is_file()
    assert not [name for name in MODULES[module] if not (REPOSITORY / "tests" / "unit" / f"{name}.py").is_file()]


@pytest.mark.parametrize("explained", EXPLAINED, ids=lambda each: f"{each.module}: {each.after}")
def test_the_line_of_an_explained_mutant_is_in_its_module(explained: Explained) -> None:
    source = (REPOSITORY / "src" / "soci_pipeline" / f"{explained.module}.py").read_text()
    lines = [line.strip() for line in source.splitlines()]
    assert set(explained.before.splitlines()) <= set(lines)
    assert explained.before != explained.after
    assert explained.reason
