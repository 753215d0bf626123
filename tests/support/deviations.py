"""Registries that deviate from the distribution specification as described in public bug reports: one class for each.

`Registry` follows the specification, in memory; a subclass overrides the request in which a real registry differs.
Serve ``Registry().answer`` with `tests.support.strange.strange`.
"""

import json
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_INDEX

_MIB = 1 << 20
_UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<session>[^/]*)\Z")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})\Z")
_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)\Z")
_TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list\Z")
_REFERRERS = re.compile(r"/v2/(?P<name>.+)/referrers/(?P<digest>[^/]+)\Z")
PAGE = "<!doctype html><title>Log in</title>"


def error(status: int, code: str, message: str = "", detail: str = "") -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message, "detail": detail}]}, status)


class Registry:
    """An in-memory registry. ``received`` counts the bytes of all bodies."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.sessions: dict[str, bytearray] = {}
        self.requests: list[str] = []
        self.received = 0

    async def answer(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.url.path}")
        body = await self._body(request)
        special = self.special(request, body)
        return special if special is not None else self.regular(request, body)

    def special(self, request: Request, body: bytes) -> Response | None:
        """Return the response that deviates; None for the regular one."""
        return None

    def regular(self, request: Request, body: bytes) -> Response:
        path = request.url.path
        if path == "/v2/":
            return JSONResponse({})
        if found := _UPLOAD.match(path):
            return self.upload(request, found["name"], found["session"], body)
        if found := _BLOB.match(path):
            return self.blob(request, found["digest"])
        if found := _MANIFEST.match(path):
            return self.manifest(request, found["name"], found["reference"], body)
        if found := _TAGS.match(path):
            return self.list_tags(request, found["name"])
        if found := _REFERRERS.match(path):
            return self.list_referrers(request, found["digest"])
        return error(404, "NOT_FOUND")

    def upload(self, request: Request, name: str, session: str, body: bytes) -> Response:
        if request.method == "POST":
            return self.open_session(request, name)
        if session not in self.sessions:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if request.method == "PATCH":
            return self.patch(request, name, session, body)
        if request.method == "PUT":
            return self.finish(request, name, session, body)
        if request.method == "DELETE":
            del self.sessions[session]
            return Response(status_code=204)
        return Response(status_code=204, headers=self.place(request, name, session))

    def open_session(self, request: Request, name: str) -> Response:
        session = str(uuid.uuid4())
        self.sessions[session] = bytearray()
        return Response(status_code=202, headers=self.place(request, name, session))

    def place(self, request: Request, name: str, session: str) -> dict[str, str]:
        """Return the headers that say where a session continues."""
        return {
            "Location": f"/v2/{name}/blobs/uploads/{session}",
            "Range": f"0-{max(0, len(self.sessions[session]) - 1)}",
        }

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        start = int(request.headers["content-range"].partition("-")[0])
        if start != len(self.sessions[session]):
            return Response(status_code=416, headers=self.place(request, name, session))
        self.sessions[session] += body
        return Response(status_code=202, headers=self.place(request, name, session))

    def finish(self, request: Request, name: str, session: str, body: bytes) -> Response:
        data = bytes(self.sessions[session] + body)
        digest = request.query_params["digest"]
        if Digest.of(data) != digest:
            return error(400, "DIGEST_INVALID")
        del self.sessions[session]
        self.blobs[digest] = data
        return Response(status_code=201, headers={"Location": f"/v2/{name}/blobs/{digest}"})

    def blob(self, request: Request, digest: str) -> Response:
        if digest not in self.blobs:
            return error(404, "BLOB_UNKNOWN")
        return Response(self.blobs[digest], headers={"Docker-Content-Digest": digest})

    def manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        if request.method == "PUT":
            return self.put_manifest(request, name, reference, body)
        digest = self.tags.get(reference, reference)
        if digest not in self.manifests:
            return error(404, "MANIFEST_UNKNOWN")
        if request.method == "DELETE":
            del self.manifests[digest]
            return Response(status_code=202)
        media_type, data = self.manifests[digest]
        return Response(data, media_type=media_type, headers={"Docker-Content-Digest": digest})

    def put_manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        digest = Digest.of(body)
        self.manifests[digest] = (request.headers["content-type"], body)
        if not reference.startswith("sha256:"):
            self.tags[reference] = digest
        headers = {"Docker-Content-Digest": digest}
        if subject := json.loads(body).get("subject"):
            headers["OCI-Subject"] = subject["digest"]
        return Response(status_code=201, headers=headers)

    def list_tags(self, request: Request, name: str) -> Response:
        return JSONResponse({"name": name, "tags": sorted(self.tags)})

    def list_referrers(self, request: Request, subject: str) -> Response:
        found = [
            {"mediaType": media_type, "digest": digest, "size": len(data)}
            for digest, (media_type, data) in self.manifests.items()
            if (json.loads(data).get("subject") or {}).get("digest") == subject
        ]
        return JSONResponse({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}, media_type=OCI_INDEX)

    async def _body(self, request: Request) -> bytes:
        data = bytearray()
        try:
            async for piece in request.stream():
                data += piece
                self.received += len(piece)
        except ClientDisconnect:
            return b""
        return bytes(data)


class NoReferrers(Registry):
    """Distribution and others: no referrers API, and no OCI-Subject for a manifest with a subject."""

    def put_manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        answer = super().put_manifest(request, name, reference, body)
        del answer.headers["OCI-Subject"]
        return answer

    def list_referrers(self, request: Request, subject: str) -> Response:
        return error(404, "NOT_FOUND")


class RejectsLargeParts(Registry):
    """GHCR: 416 for a part larger than 4 MiB (oras-project/rust-oci-client#35)."""

    limit = 4 * _MIB

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        if len(body) > self.limit:
            message = "the request body is too large and exceeds the maximum permissible limit of 4.00MiB"
            return error(416, "REQUESTED_RANGE_NOT_SATISFIABLE", message)
        return super().patch(request, name, session, body)


class RejectsParts(Registry):
    """Artifact Registry, and proxies without PATCH: no parts at all (dotnet/sdk-container-builds#287)."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        return Response(status_code=self.status)


class WantsParts(Registry):
    """Older Artifactory: blobs can be uploaded only by PATCH (containerd/containerd#3533)."""

    def finish(self, request: Request, name: str, session: str, body: bytes) -> Response:
        return Response(status_code=405) if body else super().finish(request, name, session, body)


class LimitsRequests(Registry):
    """A proxy that limits every request: nginx with its default, Cloudflare (smol-machines/smolvm#436)."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def special(self, request: Request, body: bytes) -> Response | None:
        too_large = int(request.headers.get("content-length", "0")) > self.limit
        return Response(PAGE, status_code=413, media_type="text/html") if too_large else None


class LosesSessions(Registry):
    """Artifactory: occasional 404 for a part during an upload (GoogleContainerTools/jib#3399)."""

    losses = 1

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        if self.losses and self.sessions[session]:
            self.losses -= 1
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        return super().patch(request, name, session, body)


class AnswersPartsWith204(Registry):
    """pulp: 204 for a part, and no status of a session (pulp/pulp_container#2199)."""

    def upload(self, request: Request, name: str, session: str, body: bytes) -> Response:
        if request.method == "GET":
            return Response(status_code=405)
        answer = super().upload(request, name, session, body)
        if request.method == "PATCH":
            answer.status_code = 204
        return answer


class AnswersPartsWith201(Registry):
    """Amazon ECR: 201 for a part (jdx/mise#11376), and a Range that stays at the first one
    (aws/containers-roadmap#2831)."""

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        answer = super().patch(request, name, session, body)
        answer.status_code = 201
        answer.headers["Range"] = f"0-{len(body) - 1}"
        return answer


class CountsOneTooMany(Registry):
    """zuul-registry: the Range names the byte after the last one (docker/for-linux#1296); older pulp did, too
    (pulp/pulp_container#284)."""

    def place(self, request: Request, name: str, session: str) -> dict[str, str]:
        return super().place(request, name, session) | {"Range": f"bytes=0-{len(self.sessions[session])}"}


class NamesNoRange(Registry):
    """Gitea, Harbor: an empty session has the Range ``0--1`` or none (go-gitea/gitea#34795, goharbor/harbor#9253)."""

    def place(self, request: Request, name: str, session: str) -> dict[str, str]:
        headers = super().place(request, name, session)
        return headers | {"Range": f"0-{len(self.sessions[session]) - 1}"}


class NamesNoLocation(Registry):
    """Older servers: the id of a session without its URL."""

    def place(self, request: Request, name: str, session: str) -> dict[str, str]:
        return {"Docker-Upload-UUID": session}


class DoubtsAfterACut(Registry):
    """Amazon ECR: the response to a part is lost, the Range is outdated, and a retry of the part gets 416."""

    cuts = 1

    def place(self, request: Request, name: str, session: str) -> dict[str, str]:
        return super().place(request, name, session) | {"Range": "0-0"}

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        answer = super().patch(request, name, session, body)
        if answer.status_code == 202 and self.cuts:
            self.cuts -= 1
            return Response(status_code=503)
        return answer


class CutsTheFirstPart(Registry):
    """A fault to recover from: the part is stored, but the response is 503."""

    cuts = 1

    def patch(self, request: Request, name: str, session: str, body: bytes) -> Response:
        answer = super().patch(request, name, session, body)
        if self.cuts:
            self.cuts -= 1
            return Response(status_code=503)
        return answer


class CountsOneTooManyAfterACut(CutsTheFirstPart, CountsOneTooMany):
    """As `CountsOneTooMany`, with a fault that makes the client read the Range."""


class HasNoStatusAfterACut(CutsTheFirstPart, AnswersPartsWith204):
    """As `AnswersPartsWith204`, with a fault that makes the client request the status."""


class NamesNoRangeAfterACut(CutsTheFirstPart, NamesNoRange):
    """As `NamesNoRange`, with a fault that makes the client read the Range."""


class AnswersWithOtherStatuses(Registry):
    """Older servers: success statuses other than the specified ones (opencontainers/distribution-spec#68)."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def special(self, request: Request, body: bytes) -> Response | None:
        answer = self.regular(request, body)
        if request.method in ("PUT", "DELETE") and answer.status_code in (201, 202):
            answer.status_code = self.status
        return answer


class AcceptsAndForgets(Registry):
    """202 for a blob that is not stored: the first upload is lost."""

    losses = 1

    def finish(self, request: Request, name: str, session: str, body: bytes) -> Response:
        if self.losses:
            self.losses -= 1
            del self.sessions[session]
            return Response(status_code=202)
        return super().finish(request, name, session, body)


class AcceptsManifestsAndForgets(Registry):
    """202 for a manifest that is not stored."""

    def put_manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        return Response(status_code=202)


class RejectsThePing(Registry):
    """gcr.io: a login for one project may not read ``/v2/`` (genuinetools/reg#199)."""

    def special(self, request: Request, body: bytes) -> Response | None:
        return error(403, "DENIED") if request.url.path == "/v2/" else None


class RejectsTagDeletion(Registry):
    """Distribution and registries made of it: 400 for the deletion of a tag
    (distribution/distribution-library-image#160)."""

    def manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        if request.method == "DELETE" and reference in self.tags:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        return super().manifest(request, name, reference, body)


class NamesManifestsBySha512(Registry):
    """A Docker-Content-Digest with an algorithm other than the client's."""

    def put_manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        answer = super().put_manifest(request, name, reference, body)
        answer.headers["Docker-Content-Digest"] = Digest.of(body, "sha512")
        return answer


class MountsWith(Registry):
    """A status other than 201 for a mount; ``mounts`` is whether the blob is mounted."""

    def __init__(self, status: int, *, mounts: bool) -> None:
        super().__init__()
        self.status = status
        self.mounts = mounts
        self.elsewhere: dict[str, bytes] = {}

    def open_session(self, request: Request, name: str) -> Response:
        digest = request.query_params.get("mount", "")
        if not digest:
            return super().open_session(request, name)
        if self.mounts:
            self.blobs[digest] = self.elsewhere[digest]
            return Response(status_code=self.status, headers={"Location": f"/v2/{name}/blobs/{digest}"})
        answer = super().open_session(request, name)
        answer.status_code = self.status
        return answer


class HasNoHead(Registry):
    """Older distribution: 405 for HEAD (distribution/distribution#1485); other servers answer 501."""

    status = 405

    def special(self, request: Request, body: bytes) -> Response | None:
        return Response(status_code=self.status) if request.method == "HEAD" else None


class HeadIsNotImplemented(HasNoHead):
    """As `HasNoHead`, with 501."""

    status = 501


class HeadHasNoLength(Registry):
    """zuul-registry: ``Content-Length: 0`` for every HEAD request (docker/for-linux#1296)."""

    def special(self, request: Request, body: bytes) -> Response | None:
        answer = self.regular(request, body)
        if request.method == "HEAD":
            answer.headers["Content-Length"] = "0"
        return answer


class NamesOtherCodes(Registry):
    """Harbor: 404 with a code that is not in the specification (containers/image#2203)."""

    def special(self, request: Request, body: bytes) -> Response | None:
        answer = self.regular(request, body)
        return error(404, "NOT_FOUND", "artifact not found") if answer.status_code == 404 else answer


class HeadFails(HasNoHead):
    """Nexus 3.96: 500 for HEAD (sonatype/nexus-public#1059)."""

    status = 500


class NamesNoMediaType(Registry):
    """A manifest as application/json or text/plain (containerd/cri#787, containers/image#417)."""

    def __init__(self, media_type: str) -> None:
        super().__init__()
        self.media_type = media_type

    def manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        answer = super().manifest(request, name, reference, body)
        if request.method in ("GET", "HEAD"):
            answer.headers["Content-Type"] = self.media_type
        return answer


class LeadsToAnother(Registry):
    """A registry that redirects uploads to ``other``, which names its sessions by a path
    (containerd/containerd#11949)."""

    other = ""

    def open_session(self, request: Request, name: str) -> Response:
        return RedirectResponse(f"http://{self.other}{request.url.path}", 307)


class NamesNoDigest(Registry):
    """Red Hat's registry and ECR: no Docker-Content-Digest (crazy-max/diun#594, distribution/distribution#3792)."""

    def special(self, request: Request, body: bytes) -> Response | None:
        answer = self.regular(request, body)
        del answer.headers["Docker-Content-Digest"]
        return answer


class SignsForGet(Registry):
    """Storage services: a URL that is signed for GET rejects HEAD with 403 (artifact-keeper/artifact-keeper#3209)."""

    storage = ""

    def blob(self, request: Request, digest: str) -> Response:
        if digest not in self.blobs:
            return error(404, "BLOB_UNKNOWN")
        return RedirectResponse(f"http://{self.storage}/{digest}?signature=for-get", 307)

    async def store(self, request: Request) -> Response:
        """The storage service, to be served separately."""
        if request.method == "HEAD":
            return Response(status_code=403)
        return Response(self.blobs[request.url.path.strip("/")])


class ListsNoTags(Registry):
    """``tags`` is null, or missing, for a repository without tags (goharbor/harbor and others)."""

    def __init__(self, document: Mapping[str, object]) -> None:
        super().__init__()
        self.document = document

    def list_tags(self, request: Request, name: str) -> Response:
        return JSONResponse(dict(self.document))


class LinksToPages(Registry):
    """A tag list with one tag per page; ``form`` is the format of the pagination link, ``{}`` stands for the URL."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def list_tags(self, request: Request, name: str) -> Response:
        tags = sorted(self.tags)
        place = tags.index(request.query_params["last"]) + 1 if "last" in request.query_params else 0
        page = tags[place : place + 1]
        path = f"/v2/{name}/tags/list?n=1&last={tags[place]}" if place + 1 < len(tags) else ""
        host = request.headers["host"]
        url = path if self.form.count("{host}") == 0 else ""
        link = self.form.replace("{host}", host + path).replace("{}", url)
        return JSONResponse({"name": name, "tags": page}, headers={"Link": link} if path else {})


class AnswersReferrersWith(NoReferrers):
    """A status and a body for the referrers API that is not there: a web page with status 200
    (sigstore/sigstore-js#1187), 400 (quay/quay#3071) and others."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__()
        self.status, self.body = status, body

    def list_referrers(self, request: Request, subject: str) -> Response:
        return Response(self.body, self.status, media_type="text/html")


class ListsNullReferrers(Registry):
    """``manifests`` is null if nothing refers to a digest."""

    def list_referrers(self, request: Request, subject: str) -> Response:
        return JSONResponse({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": None}, media_type=OCI_INDEX)


class ReadsTheFallbackTagAsADigest(NoReferrers):
    """GitLab: ``sha256-…`` without such a tag is the manifest of that digest (oras-project/oras-go#1396)."""

    def manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        if request.method in ("GET", "HEAD") and reference not in self.tags:
            reference = reference.replace("sha256-", "sha256:")
        return super().manifest(request, name, reference, body)


class RejectsManifest(Registry):
    """A tag that must not move, with the error of one registry."""

    def __init__(self, status: int, code: str, message: str, detail: str = "") -> None:
        super().__init__()
        self.rejection = (status, code, message, detail)

    def put_manifest(self, request: Request, name: str, reference: str, body: bytes) -> Response:
        if reference in self.tags:
            return error(*self.rejection)
        return super().put_manifest(request, name, reference, body)


class RejectsWhatAnotherUploaded(Registry):
    """Nexus without redeployment: 400 at the end of an upload that another client won
    (sonatype/nexus-public#967)."""

    def finish(self, request: Request, name: str, session: str, body: bytes) -> Response:
        super().finish(request, name, session, body)
        return error(400, "BLOB_UPLOAD_INVALID", "blob upload invalid", "blobs cannot be updated")


class DeletesNothing(Registry):
    """A status for every deletion: 405 at Docker Hub (genuinetools/reg#143), 404 at proxies without support."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def special(self, request: Request, body: bytes) -> Response | None:
        is_deletion = request.method == "DELETE" and "/manifests/" in request.url.path
        return error(self.status, HTTPStatus(self.status).name) if is_deletion else None


class NamesItselfWithHttp(Registry):
    """A registry behind a proxy that ends TLS: Location, Link and realm begin with http (distribution/distribution#996,
    Finsys/dockhand#1428). With ``port`` False, they have no port either."""

    def __init__(self, *, port: bool = True, token_path: str = "/token") -> None:
        super().__init__()
        self.port = port
        self.token_path = token_path
        self.logins: list[str] = []

    def own_url(self, request: Request) -> str:
        host = request.headers["host"]
        return f"http://{host if self.port else host.partition(':')[0]}"

    def special(self, request: Request, body: bytes) -> Response | None:
        if request.url.path == self.token_path:
            self.logins.append(request.headers.get("authorization", ""))
            return JSONResponse({"access_token": "given"})
        if request.headers.get("authorization") == "Bearer given":
            return None
        realm = f'Bearer realm="{self.own_url(request)}{self.token_path}",service="r"'
        return Response(status_code=401, headers={"WWW-Authenticate": realm})

    def place(self, request: Request, name: str, session: str) -> dict[str, str]:
        headers = super().place(request, name, session)
        return headers | {"Location": self.own_url(request) + headers["Location"]}

    def list_tags(self, request: Request, name: str) -> Response:
        tags, is_last = sorted(self.tags), "last" in request.query_params
        link = f'<{self.own_url(request)}/v2/{name}/tags/list?last=x>; rel="next"'
        page = tags[1:] if is_last else tags[:1]
        return JSONResponse({"name": name, "tags": page}, headers={} if is_last else {"Link": link})
