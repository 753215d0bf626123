"""What the demo answers, for people and for programs."""

from dataclasses import replace

from local_stack.demonstration import Demonstration
from local_stack.demonstration_text import as_json, as_text
from local_stack.publication import Publication
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP, OCI_MANIFEST
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.records import LayerRecord, PlatformImage
from soci_pipeline.soci.reasons import Reason


def _digest(text: str) -> Digest:
    return Digest.of(text.encode())


def _demonstration(*, page: str | None, not_built: str | None, builder: str = "prebuilt") -> Demonstration:
    layers = (
        LayerRecord(digest=_digest("big"), size=20 << 20, media_type=OCI_LAYER_GZIP, ztoc=_digest("ztoc")),
        LayerRecord(digest=_digest("small"), size=1000, media_type=OCI_LAYER_GZIP, reason=Reason.TOO_SMALL),
    )
    image = PlatformImage(
        platform=Platform("linux", "arm64"),
        manifest=Descriptor(media_type=OCI_MANIFEST, digest=_digest("image"), size=1),
        soci_index=Descriptor(media_type=OCI_MANIFEST, digest=_digest("soci"), size=1),
        layers=layers,
    )
    publication = Publication(
        reference="127.0.0.1:5000/demo/hello-web:abc",
        index=_digest("index"),
        platforms=(image,),
        tags=("abc",),
        seconds=12.34,
        run_url="http://127.0.0.1:4200/runs/flow-run/x",
    )
    return Demonstration(publication=publication, builder=builder, not_built=not_built, page=page, ui="http://ui")


def test_the_table_has_every_digest_and_what_the_image_answered() -> None:
    text = as_text(_demonstration(page="<html><h1>Hello from x86_64</h1></html>", not_built=None), 60)
    for name in ("index", "image", "soci", "big", "small"):
        assert str(_digest(name)) in text
    assert "not indexed: too-small" in text
    assert "too-small: smaller than the minimum size" in text
    assert "Hello from x86_64" in text
    assert "Nothing was built" not in text


def test_while_the_stack_is_up_it_says_what_to_try() -> None:
    shown = _demonstration(page=None, not_built=None)
    reference = "127.0.0.1:5000/demo/hello-web:abc"
    assert reference not in as_text(shown, 60).partition("is published.")[2]
    without_engine = as_text(shown, 60, still_up=True)
    assert f"verify --all {reference}" in without_engine
    assert "http://127.0.0.1:4200/runs/flow-run/x" in without_engine
    assert "docker" not in without_engine
    private = replace(shown, docker="DOCKER_HOST=unix:///x/docker.sock /x/bin/docker")
    assert f"DOCKER_HOST=unix:///x/docker.sock /x/bin/docker pull {reference}" in as_text(private, 60, still_up=True)


def test_what_was_not_built_is_said_with_its_reason() -> None:
    text = as_text(_demonstration(page=None, not_built="no Docker engine answers"), 60)
    assert "Nothing was built: no Docker engine answers." in text
    assert "the image answered" not in text


def test_a_platform_that_was_left_out_is_said_with_its_reason() -> None:
    text = as_text(_demonstration(page="<h1>x</h1>", not_built="one platform alone", builder="docker"), 60)
    assert "Not everything was built: one platform alone." in text
    assert "wheels" not in text


def test_the_json_has_the_keys_that_programs_read() -> None:
    answer = as_json(_demonstration(page=None, not_built="x"), 60)
    assert {"reference", "index", "platforms", "tags", "duration_s"} <= set(answer)
    assert answer["duration_s"] == 60
    (platform,) = answer["platforms"]
    assert platform["platform"] == "linux/arm64"
    assert [layer["reason"] for layer in platform["layers"]] == [None, "too-small"]
    assert platform["layers"][0]["ztoc"] == str(_digest("ztoc"))
