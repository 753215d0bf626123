"""One publication of an image moves tags at a time; other images do not wait for it."""

import threading
import time
from uuid import uuid4

from prefect.client.orchestration import get_client

from soci_pipeline.registry.reference import ImageReference
from tasks.tags import alone, limit_of


def _image() -> ImageReference:
    return ImageReference.parse(f"registry.example.com/team/{uuid4().hex[:8]}")


def test_two_publications_of_one_image_do_not_move_tags_at_once() -> None:
    image = _image()
    inside: list[str] = []

    def other() -> None:
        with alone(image):
            inside.append("second")

    thread = threading.Thread(target=other)
    with alone(image):
        thread.start()
        time.sleep(3)
        inside.append("first")
    thread.join(60)
    assert inside == ["first", "second"]


def test_another_image_does_not_wait() -> None:
    with alone(_image()), alone(_image()):
        pass


def test_the_limit_exists_afterwards_and_is_free() -> None:
    image = _image()
    with alone(image):
        pass
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(limit_of(image))
    assert (limit.limit, limit.active, limit.active_slots) == (1, True, 0)


def test_all_tags_of_one_repository_share_the_limit() -> None:
    image = _image()
    assert limit_of(image.with_tag("a")) == limit_of(image)
    assert limit_of(image) != limit_of(_image())
