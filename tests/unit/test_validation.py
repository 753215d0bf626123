"""What pydantic finds wrong, in plain words and without the input."""

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from soci_pipeline.validation import in_one_line, place_of, problems_of


class _Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"] = "cat"
    lives: int

    @field_validator("lives")
    @classmethod
    def _not_too_many(cls, lives: int) -> int:
        if lives > 9:
            raise ValueError("a cat has nine lives")
        return lives


class _Dog(BaseModel):
    kind: Literal["dog"] = "dog"


_ANIMAL: TypeAdapter[_Cat | _Dog] = TypeAdapter(Annotated[_Cat | _Dog, Field(discriminator="kind")])


def _said(document: str, **options: str) -> str:
    with pytest.raises(ValidationError) as caught:
        _ANIMAL.validate_json(document)
    return in_one_line(problems_of(caught.value, **options), whole="animal")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "animal: it is not valid JSON"),
        ("{}", "animal: missing field `kind`"),
        ('{"kind": "cow"}', "animal: its `kind` is not cat or dog"),
        ('{"kind": "cat"}', "cat.lives: is required"),
        ('{"kind": "cat", "lives": 10}', "cat.lives: a cat has nine lives"),
        ('{"kind": "cat", "lives": 1, "tail": 1}', "cat.tail: unknown field"),
    ],
)
def test_each_fault_is_said_in_plain_words_with_its_place(document: str, said: str) -> None:
    assert _said(document) == said


def test_the_word_for_an_unknown_key_is_the_callers() -> None:
    assert _said('{"kind": "cat", "lives": 1, "tail": 1}', unknown="unknown key") == "cat.tail: unknown key"


@given(st.text(min_size=5, max_size=300, alphabet="xyz0"))
def test_nothing_of_a_hostile_value_is_repeated_and_no_name_of_a_key_in_full(text: str) -> None:
    said = _said(f'{{"kind": "cat", "lives": "{text}z", "{text}": 1}}', unknown="unknown")
    assert f"{text}z" not in said
    assert len(said) < 400
    assert _said(f'{{"kind": "{text}"}}') == "animal: its `kind` is not cat or dog"


def test_a_fault_that_is_there_twice_is_said_once() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[_Cat]).validate_python([{}, {}])
    found = problems_of(caught.value)
    assert [place_of(fault) for fault in found] == ["0.lives", "1.lives"]
    assert in_one_line([found[0], found[0]]) == "0.lives: is required"
