"""Prebuilt images, taken from a path, an http(s) URL or a registry."""

import re
from pathlib import Path
from urllib.parse import urldefrag

from soci_pipeline.builders.builder import BuilderName, Connect
from soci_pipeline.builders.request import BuildRequest, inside
from soci_pipeline.errors import InvalidInput, SourceError
from soci_pipeline.file_download import NotFetched, check_address, fetch
from soci_pipeline.log import logger
from soci_pipeline.oci.layout import Layout
from soci_pipeline.urls import redacted

MAX_DOWNLOAD_BYTES = 64 << 30
_DOCKER = "docker://"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LOCAL_FRAGMENT = re.compile(r"#ref=([^#]+)\Z")


class PrebuiltBuilder:
    """Takes an OCI archive, an OCI layout or a Docker archive from the location in the request."""

    name = BuilderName.PREBUILT
    compresses = False
    trusted = False

    def __init__(self, connect: Connect | None = None) -> None:
        self._connect = connect

    def check(self, request: BuildRequest) -> None:
        """Raise if the request has no `prebuilt`, or if it is a missing file or not a valid URL or reference."""
        place = _place(request)
        if place.startswith(_DOCKER):
            from soci_pipeline.registry.reference import ImageReference

            ImageReference.parse(place.removeprefix(_DOCKER))
        elif _is_address(place):
            _expected(place)
        else:
            _local(request, place)

    def build(self, request: BuildRequest, destination: Path) -> Path:
        """Fetch a remote image into ``destination``; return the archive or layout."""
        place = _place(request)
        if place.startswith(_DOCKER):
            return self._pull(place.removeprefix(_DOCKER), request, destination)
        if _is_address(place):
            return download_archive(place, destination)
        return _local(request, place)

    def _pull(self, text: str, request: BuildRequest, destination: Path) -> Path:
        from soci_pipeline.registry.client import RegistryClient
        from soci_pipeline.registry.pull import pull_graph
        from soci_pipeline.registry.reference import ImageReference

        reference = ImageReference.parse(text)
        layout = Layout.create(destination / "layout")
        wanted = reference.digest or reference.tag or "latest"
        with RegistryClient(reference.registry) if self._connect is None else self._connect(reference) as client:
            root = pull_graph(client, reference.repository, wanted, layout, platforms=[request.platform])
        layout.set_roots([root])
        return layout.path


def download_archive(address: str, destination: Path) -> Path:
    """Download an archive into the folder ``destination``.

    A fragment ``#sha256=HEX`` is compared with the content. Raises `SourceError` if the download fails,
    `DamagedContent` if the digest does not match; a partial file is never left behind.
    """
    expected = _expected(address)
    destination.mkdir(parents=True, exist_ok=True)
    target = destination / "prebuilt.tar"
    logger().info("fetching the prebuilt image from %s", redacted(address))
    try:
        fetch(address, target, limit=MAX_DOWNLOAD_BYTES, sha256=expected)
    except NotFetched as error:
        raise SourceError(error.reason, temporary=error.temporary) from error
    return target


def image_name(prebuilt: str | None) -> str | None:
    """Return the name after ``#ref=`` in `prebuilt`, which selects one of several images; None if there is none."""
    if not prebuilt:
        return None
    if _is_address(prebuilt):
        return _fragment(prebuilt).get("ref")
    match = _LOCAL_FRAGMENT.search(prebuilt)
    return None if match is None else match[1]


def _place(request: BuildRequest) -> str:
    if not request.prebuilt:
        raise InvalidInput(
            "the builder `prebuilt` requires the parameter `prebuilt`, which is not set",
            advice="Set `prebuilt` to a path or URL; {platform} in it is replaced by linux-amd64 and so on.",
        )
    place = request.filled(request.prebuilt)
    return place if _is_address(place) else _LOCAL_FRAGMENT.sub("", place)


def _is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _expected(address: str) -> str | None:
    check_address(address)
    return _fragment(address).get("sha256")


def _fragment(address: str) -> dict[str, str]:
    """Parse the fragment of a URL: ``sha256=HEX``, ``ref=NAME`` or both, separated by ``&``."""
    found: dict[str, str] = {}
    for part in filter(None, urldefrag(address).fragment.split("&")):
        key, _, value = part.partition("=")
        if key in found or not (_SHA256.match(value) if key == "sha256" else key == "ref" and value):
            raise InvalidInput(
                f"the fragment of {redacted(address)!r} must be sha256= with 64 lower-case hex digits, or ref= with "
                "a name"
            )
        found[key] = value
    return found


def _local(request: BuildRequest, place: str) -> Path:
    """Return a local path: an absolute path belongs to the operator; a relative one must stay within the source."""
    path = Path(place) if Path(place).is_absolute() else inside(request.source, place, what="prebuilt")
    if not path.exists():
        raise InvalidInput(
            f"there is no prebuilt image at {place!r} for {request.platform}",
            advice="A relative path starts at the top of the source; an absolute one is read on the worker.",
        )
    return path
