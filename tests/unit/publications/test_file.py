"""The publications file: what it means, and how each fault is named with its line."""

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publications.file import PublicationsFile, load
from soci_pipeline.publications.schema import Concurrency, Publication, Schedule, WebhookRule, WhenBusy
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.webhook.publication_rules import check_rules

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "publications.yaml"
HEAD = "version: 1\nowner: shop\n"
WEB = "image: registry.example.com/acme/web\n    source: https://git.example.com/acme/web.git\n"


def read(folder: Path, text: str) -> PublicationsFile:
    path = folder / "publications.yaml"
    path.write_text(text)
    return load(path)


def fault(folder: Path, text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(folder, text)
    assert caught.value.advice
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    return caught.value.reason.replace(f"{folder}/", "")


def with_keys(lines: str) -> str:
    """A file with one publication that has these keys too, from line 6 on."""
    return f"{HEAD}publications:\n  - name: web\n    {WEB}{lines}"


def test_the_example_has_a_nightly_publication_and_one_that_pushes_start() -> None:
    file = load(EXAMPLE).content
    nightly = file.publication("shop-nightly")
    assert nightly is not None
    assert nightly.schedule is not None
    assert nightly.parameters["unless_same_as"] == "nightly"
    assert [each.name for each in file.publications if each.webhook] == ["shop"]
    for each in file.publications:
        PublishRequest.check(each.parameters)


def test_the_documented_file_is_valid(tmp_path: Path) -> None:
    page = (EXAMPLE.parents[1] / "docs" / "publications.md").read_text()
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "owner:" in each]
    file = read(tmp_path, block)
    check_rules(file)
    assert [each.deployment for each in file.content.publications] == ["publish-image/shop"]


def test_every_key_of_a_publication_is_documented() -> None:
    pages = [(EXAMPLE.parents[1] / "docs" / name).read_text() for name in ("publications.md", "parameters.md")]
    for model in (Publication, Schedule, Concurrency, WebhookRule):
        assert [key for key in model.model_fields if f"`{key}`" not in "".join(pages)] == []


def test_a_publication_has_the_defaults_that_it_does_not_set(tmp_path: Path) -> None:
    defaults = "defaults: {verify: all, platforms: linux/arm64, schedule: 1 2 * * *, concurrency: {limit: 2}}\n"
    text = f"{HEAD}{defaults}publications:\n  - name: web\n    {WEB}    verify: sample\n    schedule: null\n"
    (web,) = read(tmp_path, text).content.publications
    # `sample` is the flow's own default, and says the same as no value.
    assert web.parameters == {
        "image": "registry.example.com/acme/web",
        "source": "https://git.example.com/acme/web.git",
        "platforms": ["linux/arm64"],
    }
    assert web.schedule is None
    assert web.concurrency is not None
    assert web.concurrency.when_busy is WhenBusy.WAIT


def test_a_schedule_may_be_the_cron_expression_alone(tmp_path: Path) -> None:
    (web,) = read(tmp_path, with_keys("    schedule: 17 3 * * *\n")).content.publications
    assert web.schedule is not None
    assert web.schedule.model_dump() == {"cron": "17 3 * * *", "timezone": "UTC", "active": True}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("platfroms: [linux/amd64]", "7: publication web: unknown key 'platfroms'; did you mean 'platforms'?"),
        ("zzz: 1", "7: publication web: unknown key 'zzz'; the keys are context, dockerfile"),
        ("soci: {spansize: 3}", "7: publication web: soci: unknown key 'spansize'; did you mean 'span_size'?"),
        ("builder: foo", "7: publication web: builder: must be 'auto', 'buildx', 'docker' or 'prebuilt', not 'foo'"),
        ("worker_wait: soon", "7: publication web: worker_wait: must be a number, not 'soon'"),
        ("worker_wait: .inf", "line 7: .inf is not a finite number"),
        ("tags: [feature/x]", "7: publication web: tags: not a valid tag: 'feature/x'"),
        ("tags: [1.0]", "7: publication web: tags.0: must be a valid string, not 1.0"),
        ("platforms: [linux/amd64, linux/arm65:x]", "7: publication web: platforms"),
        ("ref: 1234567", "7: publication web: ref: must be a valid string, not 1234567"),
        ("schedule: {cron: 61 3 * * *}", "7: publication web: schedule.cron: '61 3 * * *' is not a cron expression"),
        ("schedule: {cron: 1 3 * * *, timezone: Mars}", "7: publication web: schedule.timezone: 'Mars' is not a"),
        (
            "schedule: {cron: 1 3 * * *, active: maybe}",
            "7: publication web: schedule.active: must be true or false, not 'maybe'",
        ),
        ("schedule: {corn: 1 3 * * *}", "schedule: unknown key 'corn'; did you mean 'cron'?"),
        ("concurrency: {limit: 0}", "7: publication web: concurrency.limit: must be greater than or equal to 1, not 0"),
        (
            "concurrency: {limit: 9999999999}",
            "concurrency.limit: must be less than or equal to 1000000, not 9999999999",
        ),
        ("concurrency: {limit: 1, when_busy: x}", "concurrency.when_busy: must be 'wait' or 'skip', not 'x'"),
        ("webhook: {sources: [], repositories: [a]}", "7: publication web: webhook.sources: "),
        ("webhook: {sources: [a]}", "7: publication web: webhook.repositories: is required"),
        ("webhook: {sources: [a], repositories: [b], parameters: {reff: x}}", "'reff'; did you mean 'ref'?"),
        ("name: web", "line 7: duplicate key 'name'"),
        ("build_secrets: {npm: hunter2}", "7: publication web: build_secrets: the build secret npm must name"),
        ("build_secrets: [hunter2]", "7: publication web: build_secrets: must be a valid dictionary"),
        ("source_credentials: hunter2", "7: publication web: source_credentials must name a Prefect block"),
        ('build_args: {"\\e[31m": [1]}', "7: publication web: build_args.'\\x1b[31m': must be a valid string"),
        ("description: [x]", "7: publication web: description: must be a valid string, not a list of 1"),
    ],
)
def test_a_fault_is_named_with_its_line_its_value_and_what_is_allowed(
    tmp_path: Path, lines: str, expected: str
) -> None:
    said = fault(tmp_path, with_keys(f"    {lines}\n"))
    assert expected in said.replace("source_credentials: source_credentials", "source_credentials")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is empty"),
        ("- a", "it is a list, not a mapping"),
        ("version: 2\nowner: a", "publications.yaml:1: version: must be 1, not 2"),
        ("owner: a", "version: must be 1, not nothing"),
        ("version: true", "version: must be 1, not True"),
        ("version: 1\npublications: []", "publications.yaml:2: publications: must be a list of at least one mapping"),
        ("version: 1", "owner: must be a string, not nothing"),
        (f"{HEAD}publicatons: []", "publications.yaml:3: unknown key 'publicatons'; did you mean 'publications'?"),
        (f"{HEAD}publications: [x]", "publications.yaml:3: publications.0: must be a mapping, not 'x'"),
        (f"{HEAD}defaults: 3\npublications: []", "publications.yaml:3: defaults: must be a mapping, not 3"),
        (f"{HEAD}defaults: {{name: x}}", "publications.yaml:3: defaults: unknown key 'name'"),
        (f"{HEAD}publications:\n  - image: x", "publications.yaml:4: publications.0: name: is required"),
        ("a: &a [1]\nb: *a", "line 2: the alias *a is not supported"),
        ("a: &a\n  b: *a", "line 2: the alias *a is not supported"),
        ("[" * 5000, "it is nested too deeply"),
        ("a: !!python/object:os.system x", "line 1: could not determine a constructor"),
        ("a: " + "1" * 5000, "is not valid YAML"),
        ("? [a]\n: b", "line 1: found unhashable key"),
        ("a: 1\n---\na: 2", "line 2: but found another document"),
        ("a: [1", "is not valid YAML: line 1"),
        ("\0", "special characters are not allowed"),
    ],
)
def test_a_file_of_another_shape_is_rejected(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in fault(tmp_path, text)


def test_all_faults_are_named_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = with_keys("    verify: never\n  - name: web\n    image: registry.example.com/a:tag\n    source: x y\n")
    lines = [line.strip().partition(": ")[0] for line in fault(tmp_path, text).splitlines()[1:]]
    assert lines == [f"- publications.yaml:{number}" for number in (7, 8, 9, 10)]


def test_faults_of_defaults_owner_and_publications_are_named_together(tmp_path: Path) -> None:
    text = "version: 1\nowner: A B\ndefaults:\n  zzz: 1\npublications:\n  - 3\n  - name: web\n    image: X\n  - 4\n"
    said = fault(tmp_path, text)
    for expected in (
        ":2: owner: 'A B' must be at most 63",
        ":4: defaults: unknown key 'zzz'",
        ":6: publications.0: must be a mapping, not 3",
        ":7: publication web: source: is required",
        ":9: publications.2: must be a mapping, not 4",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "webhook: {sources: [a], repositories: [b], parameters: {ref: 2024-05-01}}",
            "ref: 2024-05-01 is a date or time",
        ),
        ("build_args: {DAY: 2024-05-01T00:00:00Z}", "DAY: 2024-05-01T00:00:00Z is a date or time"),
        ("tags: [2024-05-01]", "2024-05-01 is a date or time, which JSON does not support; write it as a string"),
        ("build_args: {2024-05-01: x}", "2024-05-01 is a date or time"),
        ("build_args: {KEY: !!binary aHVudGVyMg==}", "KEY: the value is binary data (!!binary), which JSON does not"),
        ("build_args: !!set {A, B}", "build_args: the value is a set (!!set)"),
        ("build_args: !!omap [{A: B}]", "build_args: the value is an ordered mapping (!!omap)"),
        ("build_args: !!pairs [{A: B}]", "build_args: the value is a list of pairs (!!pairs)"),
    ],
)
def test_a_value_that_json_does_not_have_is_named_with_its_key(tmp_path: Path, lines: str, expected: str) -> None:
    assert f"line 7: {expected}" in fault(tmp_path, with_keys(f"    {lines}\n"))


def test_a_limit_out_of_range_is_named_with_the_range(tmp_path: Path) -> None:
    for limit in (0, 1_000_001):
        said = fault(tmp_path, with_keys(f"    concurrency: {{limit: {limit}}}\n"))
        assert f"not {limit} (allowed: 1 to 1000000)" in said


def test_two_publications_with_one_name_are_named_with_both_lines(tmp_path: Path) -> None:
    said = fault(tmp_path, with_keys(f"  - name: web\n    {WEB}"))
    assert "publications.yaml:7: publication web: the name is already used in line 4" in said


def test_a_fault_of_a_default_has_the_defaults_line(tmp_path: Path) -> None:
    text = f"{HEAD}defaults:\n  verify: never\npublications:\n  - name: web\n    {WEB}"
    assert "publications.yaml:4: publication web: verify: must be 'sample', 'all' or 'off', not 'never'" in fault(
        tmp_path, text
    )


@pytest.mark.parametrize("name", ["Web", "a/b", "../x", "-x", "x" * 64, "a b", "ä", "a\\nb"])
def test_a_name_has_lower_case_letters_digits_and_hyphens(tmp_path: Path, name: str) -> None:
    said = fault(tmp_path, f'{HEAD}publications:\n  - name: "{name}"\n    {WEB}')
    assert "must be at most 63 lower-case letters, digits and hyphens" in said
    said = fault(tmp_path, f'version: 1\nowner: "{name}"\npublications:\n  - name: web\n    {WEB}')
    assert "publications.yaml:2: owner: " in said


def test_credentials_in_a_source_are_not_repeated(tmp_path: Path) -> None:
    text = with_keys("").replace("https://git.", "https://me:hunter2@git.")
    assert "publications.yaml:6: publication web: source: " in fault(tmp_path, text)


def test_a_file_that_is_not_there_not_text_or_too_large_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        load(tmp_path)
    path = tmp_path / "publications.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="is not UTF-8 text"):
        load(path)
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(InvalidInput, match="larger than 1 MiB"):
        load(path)


@pytest.mark.parametrize("value", [None, "", [], {}, 0, True, "x", [[]], {"a": 1}])
@pytest.mark.parametrize("key", ["owner", "defaults", "publications", "version"])
def test_a_value_of_any_kind_in_any_place_is_a_fault_or_valid(tmp_path: Path, key: str, value: Any) -> None:
    document = yaml.safe_load(with_keys("")) | {key: value}
    if (key, value) in (("owner", "x"), ("defaults", None), ("defaults", {})):
        assert read(tmp_path, yaml.safe_dump(document)).content.publication("web")
    else:
        assert fault(tmp_path, yaml.safe_dump(document))
