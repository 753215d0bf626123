"""The web page of an image: some registries have one for each digest.

The URL of a manifest in the registry's API is not such a page: it requires credentials and returns JSON.
"""

from urllib.parse import quote

from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.reference import ImageReference


def web_page(image: ImageReference, digest: Digest) -> str | None:
    """Return the page of one manifest of a repository; None for registries without a known page."""
    repository = quote(image.repository)
    ecr = EcrRegistry.parse(image.registry)
    if ecr is not None and ecr.account is not None:
        console = f"https://{ecr.region}.{_console_of(ecr.region)}/ecr/repositories/private/{ecr.account}"
        return f"{console}/{repository}/_/image/{digest}/details?region={ecr.region}"
    if ecr is not None:
        return f"https://gallery.ecr.aws/{repository}"
    if image.registry == "docker.io":
        return f"https://hub.docker.com/r/{repository}/tags"
    if image.registry == "quay.io":
        return f"https://quay.io/repository/{repository}/manifest/{digest}"
    return None


def _console_of(region: str) -> str:
    """The host of the console in a region's partition (AWS General Reference, "AWS Management Console endpoints")."""
    if region.startswith("cn-"):
        return "console.amazonaws.cn"
    if region.startswith("us-gov-"):
        return "console.amazonaws-us-gov.com"
    return "console.aws.amazon.com"
