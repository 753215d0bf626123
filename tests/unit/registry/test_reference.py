import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.reference import ImageReference, is_local_registry

DIGEST = Digest("sha256:" + "0" * 63 + "1")


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("debian", "docker.io/library/debian"),
        ("debian:12", "docker.io/library/debian:12"),
        ("team/app", "docker.io/team/app"),
        ("index.docker.io/debian", "docker.io/library/debian"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/x", "localhost:5000/x"),
        ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
        ("[::1]:5000/a:t", "[::1]:5000/a:t"),
        ("registry.example.com/team/app:1.0", "registry.example.com/team/app:1.0"),
        (f"registry.example.com/a@{DIGEST}", f"registry.example.com/a@{DIGEST}"),
        (f"registry.example.com/a:t@{DIGEST}", f"registry.example.com/a:t@{DIGEST}"),
        ("r.io/a__b/c-d.e", "r.io/a__b/c-d.e"),
    ],
)
def test_a_reference_is_read_as_docker_reads_it_and_written_in_full(text: str, full: str) -> None:
    reference = ImageReference.parse(text)
    assert str(reference) == full
    assert ImageReference.parse(full) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/app",
        "app:",
        "app@",
        "app@sha256:abc",
        "https://r.io/app",
        "r.io:65536/app",
        "r.io/App",
        "r.io/a//b",
        "r.io/a/",
        "r.io/../b",
        "r.io/a:-x",
        "r.io/a:" + "x" * 129,
        "r.io/" + "a" * 300,
        "-r.io/a",
        "user@r.io/a",
        "r.io:port/a",
        "r.io/a b",
        "r.io/a\n",
        "r.io/a:t\nx",
    ],
)
def test_what_is_no_reference_is_refused_with_a_reason(text: str) -> None:
    if text.endswith("\n"):
        assert str(ImageReference.parse(text)) == text.strip()
        return
    with pytest.raises(InvalidInput):
        ImageReference.parse(text)


def test_a_target_can_be_replaced_and_left_out() -> None:
    reference = ImageReference.parse("r.io/a:t")
    assert str(reference.with_tag("u")) == "r.io/a:u"
    assert str(reference.with_digest(DIGEST)) == f"r.io/a@{DIGEST}"
    assert str(reference.without_target()) == "r.io/a"
    assert reference.name == "r.io/a"
    assert reference.target == "t"
    assert ImageReference.parse(f"r.io/a:t@{DIGEST}").target == DIGEST


def test_a_reference_goes_through_json_as_text() -> None:
    class Holder(BaseModel):
        image: ImageReference

    holder = Holder.model_validate({"image": "debian:12"})
    assert holder.model_dump_json() == '{"image":"docker.io/library/debian:12"}'
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    assert Holder(image=holder.image) == holder
    with pytest.raises(ValidationError):
        Holder.model_validate({"image": "UPPER"})


@pytest.mark.parametrize(
    ("registry", "answer"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:1", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("127.example.com", False),
        ("localhost.example.com", False),
        ("example.com:80", False),
        ("[::2]:80", False),
    ],
)
def test_loopback_is_told_by_the_hosts_own_name(registry: str, answer: bool) -> None:
    assert is_local_registry(registry) is answer


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=60))
def test_any_text_is_either_read_and_written_back_or_refused(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except InvalidInput:
        return
    assert ImageReference.parse(str(reference)) == reference


def test_the_parts_of_a_host_have_at_most_63_characters() -> None:
    assert ImageReference.parse(f"{'a' * 63}.example.com/app").registry == f"{'a' * 63}.example.com"
    with pytest.raises(InvalidInput):
        ImageReference(f"{'a' * 64}.example.com", "app")
