"""Manifests, tags and referrers of the embedded registry."""

import asyncio
from urllib.parse import urlencode

from starlette.responses import Response

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, parse
from soci_pipeline.oci.media_types import MANIFESTS
from soci_pipeline.registry.reference import is_tag
from soci_pipeline.registry.server.answers import Refusal, empty, json_response, small_body
from soci_pipeline.registry.server.exchange import Exchange, digest_of
from soci_pipeline.registry.server.storage import Repository

_MAX_DIGITS = 18


async def read(exchange: Exchange) -> Response:
    """Pulling manifests: GET and HEAD."""
    repository = exchange.existing()
    descriptor = None if repository is None else repository.manifest(exchange.target)
    if repository is None or descriptor is None:
        raise Refusal("MANIFEST_UNKNOWN", f"{exchange.name} has no manifest {exchange.target[:200]}")
    headers = {
        "Content-Type": descriptor.media_type,
        "Content-Length": str(descriptor.size),
        "Docker-Content-Digest": descriptor.digest,
        "ETag": f'"{descriptor.digest}"',
    }
    if exchange.request.method == "HEAD":
        return Response(headers=headers)
    try:
        return Response(await asyncio.to_thread(repository.read, descriptor), headers=headers)
    except FileNotFoundError as error:
        raise Refusal("MANIFEST_UNKNOWN", f"the manifest {descriptor.digest} was taken away") from error


async def put(exchange: Exchange) -> Response:
    """Pushing manifests: by tag or digest; children first."""
    target = exchange.target
    expected = digest_of(target) if ":" in target else None
    if expected is None and not is_tag(target):
        raise Refusal("TAG_INVALID", f"not a tag: {target[:140]!r}")
    data = await small_body(exchange.request, MAX_MANIFEST_BYTES, "MANIFEST_INVALID")
    media_type = exchange.request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type not in MANIFESTS:
        raise Refusal("MANIFEST_INVALID", f"not a manifest media type: {media_type[:100]!r}")
    try:
        document = parse(data, media_type=media_type, any_algorithm=True)
    except InvalidInput as error:
        raise Refusal("MANIFEST_INVALID", error.reason) from error
    digest = Digest.of(data, SHA256 if expected is None else expected.algorithm)
    if expected is not None and expected != digest:
        raise Refusal("DIGEST_INVALID", f"the manifest hashes to {digest}")
    repository = exchange.created()
    if missing := repository.missing(document):
        raise Refusal("MANIFEST_BLOB_UNKNOWN", f"{exchange.name} has no {', '.join(missing[:3])}")
    tags = [target] if expected is None else _more_tags(exchange)
    for tag in tags:
        _may_move(exchange, repository, tag, digest)
    await asyncio.to_thread(repository.put_manifest, data, media_type, digest=digest, tags=tags)
    headers = {"Location": f"/v2/{exchange.name}/manifests/{digest}", "Docker-Content-Digest": digest}
    if tags and expected is not None:
        headers["OCI-Tag"] = ", ".join(tags)
    if document.subject is not None and exchange.site.settings.referrers:
        headers["OCI-Subject"] = document.subject.digest
    return empty(201, **headers)


def _more_tags(exchange: Exchange) -> list[str]:
    """The tags that a push by digest asks for (distribution-spec after 1.1, "Pushing manifests with tags")."""
    tags = list(dict.fromkeys(exchange.request.query_params.getlist("tag")))
    for tag in tags:
        if not is_tag(tag):
            raise Refusal("TAG_INVALID", f"not a tag: {tag[:140]!r}")
    return tags


async def delete(exchange: Exchange) -> Response:
    """Content management: deleting tags and manifests."""
    repository = exchange.repository()
    if ":" in exchange.target:
        found = await asyncio.to_thread(repository.delete_manifest, digest_of(exchange.target))
    else:
        found = await asyncio.to_thread(repository.delete_tag, exchange.target)
    if not found:
        raise Refusal("MANIFEST_UNKNOWN", f"{exchange.name} has no manifest {exchange.target[:200]}")
    return empty(202)


async def tags(exchange: Exchange) -> Response:
    """Content discovery: listing tags, ``n`` at a time, after ``last``."""
    query = exchange.request.query_params
    limit = exchange.site.settings.page_size
    if "n" in query:
        if not query["n"].isdecimal() or len(query["n"]) > _MAX_DIGITS:
            raise Refusal("UNSUPPORTED", "n is the number of tags wanted", status=400)
        limit = min(limit, int(query["n"]))
    after = query.get("last", "")
    rest = [tag for tag in exchange.repository().tags() if tag > after]
    page = rest[:limit]
    headers = {}
    if page and len(rest) > len(page):
        following = urlencode({"n": limit, "last": page[-1]})
        headers["Link"] = f'</v2/{exchange.name}/tags/list?{following}>; rel="next"'
    return json_response({"name": exchange.name, "tags": page}, headers=headers)


async def referrers(exchange: Exchange) -> Response:
    """Content discovery: listing referrers, of one artifact type where that is asked for."""
    if not exchange.site.settings.referrers:
        raise Refusal("NAME_UNKNOWN", "there is no such address")
    subject = digest_of(exchange.target)
    wanted = exchange.request.query_params.get("artifactType") or None
    repository = exchange.existing()
    found = () if repository is None else await asyncio.to_thread(repository.referrers, subject, wanted)
    index = ImageIndex(manifests=found)
    headers = {"Content-Type": index.media_type}
    if wanted:
        headers["OCI-Filters-Applied"] = "artifactType"
    return Response(index.encode(), headers=headers)


def _may_move(exchange: Exchange, repository: Repository, tag: str, digest: Digest) -> None:
    immutable = exchange.site.settings.immutable
    current = repository.manifest(tag)
    if immutable is not None and current is not None and current.digest != digest and immutable(tag):
        raise Refusal("TAG_INVALID", f"the tag {tag} is immutable and points at {current.digest}")
