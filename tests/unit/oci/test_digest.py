import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest


@given(st.binary(max_size=200))
def test_the_digest_of_bytes_and_of_a_stream_is_what_hashlib_says(data: bytes) -> None:
    expected = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert Digest.of(data) == Digest.of_stream(io.BytesIO(data)) == expected
    assert str(Digest(expected)) == expected
    other = f"sha512:{hashlib.sha512(data).hexdigest()}"
    assert Digest.of(data, "sha512") == Digest.of_stream(io.BytesIO(data), "sha512") == other
    assert (Digest(other).algorithm, Digest(other).hex) == ("sha512", other[7:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 128,
        "sha256:" + "a" * 64 + "\n",
        "sha256:../../" + "a" * 58,
    ],
)
def test_anything_but_a_known_algorithm_and_its_lower_case_hex_digits_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a valid digest"):
        Digest(text)


class _Record(BaseModel):
    digest: Digest


def test_a_model_reads_and_writes_a_digest_as_text() -> None:
    record = _Record(digest=Digest.of(b"x"))
    again = _Record.model_validate_json(record.model_dump_json())
    assert again == record
    assert isinstance(again.digest, Digest)


def test_a_model_refuses_a_bad_digest() -> None:
    with pytest.raises(ValidationError, match="not a valid digest"):
        _Record.model_validate({"digest": "sha256:zz"})
