"""Links for people: to the pages that registries have, and none where there is only the registry's interface."""

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.web_page import web_page
from soci_pipeline.registry.reference import ImageReference

DIGEST = Digest(f"sha256:{'a' * 64}")


@pytest.mark.parametrize(
    ("image", "page"),
    [
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web",
            "https://eu-west-1.console.aws.amazon.com/ecr/repositories/private/123456789012/shop/web/_/image/"
            f"{DIGEST}/details?region=eu-west-1",
        ),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/web",
            "https://cn-north-1.console.amazonaws.cn/ecr/repositories/private/123456789012/web/_/image/"
            f"{DIGEST}/details?region=cn-north-1",
        ),
        ("public.ecr.aws/shop/web", "https://gallery.ecr.aws/shop/web"),
        ("shop/web", "https://hub.docker.com/r/shop/web/tags"),
        ("quay.io/shop/web", f"https://quay.io/repository/shop/web/manifest/{DIGEST}"),
    ],
)
def test_a_registry_with_pages_has_one_for_the_digest(image: str, page: str) -> None:
    assert web_page(ImageReference.parse(image), DIGEST) == page


@pytest.mark.parametrize("image", ["registry.example.com/shop/web", "127.0.0.1:5000/shop/web"])
def test_the_address_of_a_manifest_is_no_page(image: str) -> None:
    assert web_page(ImageReference.parse(image), DIGEST) is None
