import pytest
from pydantic import BaseModel, ValidationError

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.platform import Platform


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64", "linux/arm/v7", "windows/amd64", "unknown/unknown"])
def test_the_text_of_a_platform_parses_back_to_it(text: str) -> None:
    assert str(Platform.parse(text)) == text
    assert Platform.from_json(Platform.parse(text).to_json()) == Platform.parse(text)


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd46", "linux/amd64/v1/x", "linux/../amd64", "linux/am d64"]
)
def test_what_is_no_platform_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Platform.parse(text)
    assert "linux/arm64" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/amd64", "linux/amd64/v1"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
    ],
)
def test_two_names_of_one_machine_match(one: str, other: str) -> None:
    assert Platform.parse(one).matches(Platform.parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("linux/arm/v6", "linux/arm/v7"), ("linux/amd64", "linux/arm64"), ("linux/amd64/v3", "linux/amd64")],
)
def test_different_machines_do_not_match(one: str, other: str) -> None:
    assert not Platform.parse(one).matches(Platform.parse(other))


def test_the_json_keys_stand_in_the_order_of_the_specification_s_go_type() -> None:
    platform = Platform("windows", "arm64", "v8", os_version="10.0", os_features=("win32k",))
    assert list(platform.to_json()) == ["architecture", "os", "os.version", "os.features", "variant"]
    assert Platform.from_json(platform.to_json()) == platform


class _Record(BaseModel):
    platform: Platform


def test_a_model_takes_text_and_a_platform_and_refuses_the_rest() -> None:
    record = _Record.model_validate({"platform": "linux/arm64"})
    assert record == _Record(platform=Platform("linux", "arm64"))
    assert _Record.model_validate_json(record.model_dump_json()) == record
    with pytest.raises(ValidationError, match="not a valid platform"):
        _Record.model_validate({"platform": "toaster"})
