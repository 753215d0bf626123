"""Endpoints of the embedded registry for manifests, tags and referrers."""

import asyncio
from bisect import bisect_right
from functools import partial
from urllib.parse import urlencode

from starlette.responses import Response

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, parse
from soci_pipeline.oci.media_types import MANIFESTS, OCI_INDEX
from soci_pipeline.registry.reference import is_tag
from soci_pipeline.registry.server.answers import Refusal, empty, json_response, limited_body
from soci_pipeline.registry.server.exchange import Exchange, digest_of
from soci_pipeline.registry.server.repository import Repository

_PAGE = 1000
_MAX_DIGITS = 18


async def read(exchange: Exchange) -> Response:
    """Return a manifest, for GET and HEAD ("Pulling manifests")."""
    repository, descriptor = await asyncio.to_thread(_found, exchange)
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
        raise Refusal("MANIFEST_UNKNOWN", f"the manifest {descriptor.digest} was deleted in the meantime") from error


def _found(exchange: Exchange) -> tuple[Repository, Descriptor]:
    repository = exchange.existing()
    descriptor = None if repository is None else repository.manifest(exchange.target)
    if repository is None or descriptor is None:
        raise Refusal("MANIFEST_UNKNOWN", f"{exchange.name} has no manifest {exchange.target[:200]}")
    return repository, descriptor


async def put(exchange: Exchange) -> Response:
    """Store a manifest under a tag or digest ("Pushing Manifests"); its children must already exist."""
    target = exchange.target
    expected = digest_of(target) if ":" in target else None
    if expected is None and not is_tag(target):
        raise Refusal("TAG_INVALID", f"not a valid tag: {target[:140]!r}")
    data = await limited_body(exchange.request, MAX_MANIFEST_BYTES, "MANIFEST_INVALID")
    # Use a thread, because parsing, hashing and writing would block all other requests.
    return await asyncio.to_thread(_put, exchange, expected, data)


def _put(exchange: Exchange, expected: Digest | None, data: bytes) -> Response:
    media_type = exchange.request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type not in MANIFESTS:
        raise Refusal("MANIFEST_INVALID", f"not a manifest media type: {media_type[:100]!r}")
    try:
        document = parse(data, media_type=media_type, any_algorithm=True)
    except InvalidInput as error:
        raise Refusal("MANIFEST_INVALID", error.reason) from error
    digest = Digest.of(data, SHA256 if expected is None else expected.algorithm)
    if expected is not None and expected != digest:
        raise Refusal("DIGEST_INVALID", f"the manifest has the digest {digest}")
    repository = exchange.created()
    if missing := repository.missing(document):
        raise Refusal("MANIFEST_BLOB_UNKNOWN", f"{exchange.name} has no {', '.join(missing[:3])}")
    tags = [exchange.target] if expected is None else _more_tags(exchange)
    check = partial(_may_move, exchange, digest)
    repository.put_manifest(data, media_type, digest=digest, tags=tags, check_tag=check)
    headers = {"Location": f"/v2/{exchange.name}/manifests/{digest}", "Docker-Content-Digest": digest}
    if tags and expected is not None:
        headers["OCI-Tag"] = ", ".join(tags)
    if document.subject is not None and exchange.site.settings.referrers:
        headers["OCI-Subject"] = document.subject.digest
    return empty(201, **headers)


def _more_tags(exchange: Exchange) -> list[str]:
    """Return the tags in the query of a push by digest (distribution-spec after 1.1, "Pushing manifests with tags")."""
    tags = list(dict.fromkeys(exchange.request.query_params.getlist("tag")))
    for tag in tags:
        if not is_tag(tag):
            raise Refusal("TAG_INVALID", f"not a valid tag: {tag[:140]!r}")
    return tags


async def delete(exchange: Exchange) -> Response:
    """Delete a tag or manifest ("Content Management", deleting tags and manifests)."""
    if not await asyncio.to_thread(_delete, exchange):
        raise Refusal("MANIFEST_UNKNOWN", f"{exchange.name} has no manifest {exchange.target[:200]}")
    return empty(202)


def _delete(exchange: Exchange) -> bool:
    repository = exchange.repository()
    if ":" in exchange.target:
        return repository.delete_manifest(digest_of(exchange.target))
    return repository.delete_tag(exchange.target)


async def tags(exchange: Exchange) -> Response:
    """List up to ``n`` tags after ``last`` ("Content Discovery", listing tags)."""
    query = exchange.request.query_params
    limit = _PAGE
    if "n" in query:
        if not query["n"].isdecimal() or len(query["n"]) > _MAX_DIGITS:
            raise Refusal("UNSUPPORTED", "n must be a number of tags", status=400)
        limit = min(limit, int(query["n"]))
    after = query.get("last", "")
    listed = await asyncio.to_thread(lambda: exchange.repository().tags())
    rest = listed[bisect_right(listed, after) :]
    page = rest[:limit]
    headers = {}
    if page and len(rest) > len(page):
        following = urlencode({"n": limit, "last": page[-1]})
        headers["Link"] = f'</v2/{exchange.name}/tags/list?{following}>; rel="next"'
    return json_response({"name": exchange.name, "tags": page}, headers=headers)


async def referrers(exchange: Exchange) -> Response:
    """List referrers, optionally of one artifact type ("Content Discovery", listing referrers)."""
    if not exchange.site.settings.referrers:
        raise Refusal("NAME_UNKNOWN", "there is no such URL")
    subject = digest_of(exchange.target)
    wanted = exchange.request.query_params.get("artifactType") or None
    headers = {"Content-Type": OCI_INDEX}
    if wanted:
        headers["OCI-Filters-Applied"] = "artifactType"
    return Response(await asyncio.to_thread(_referrers, exchange, subject, wanted), headers=headers)


def _referrers(exchange: Exchange, subject: Digest, wanted: str | None) -> bytes:
    repository = exchange.existing()
    found = () if repository is None else repository.referrers(subject, wanted)
    return ImageIndex(manifests=found).encode()


def _may_move(exchange: Exchange, digest: Digest, tag: str, current: Descriptor | None) -> None:
    immutable = exchange.site.settings.immutable
    if immutable is not None and current is not None and current.digest != digest and immutable(tag):
        raise Refusal("TAG_INVALID", f"the tag {tag} is immutable and points at {current.digest}")
