"""The embedded registry's endpoints (distribution-spec 1.1, "Endpoints"). Each handler cites the section it follows."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from soci_pipeline.errors import DamagedContent, DiskFull, HostileArchive, InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.registry.reference import is_repository
from soci_pipeline.registry.server import blobs, manifests
from soci_pipeline.registry.server.answers import Refusal, empty, json_response
from soci_pipeline.registry.server.authentication import CATALOG, Access, Gate, repository_access
from soci_pipeline.registry.server.exchange import Exchange, Site
from soci_pipeline.registry.server.settings import ServerSettings
from soci_pipeline.registry.server.storage import Storage
from soci_pipeline.registry.server.uploads import Uploads

Handler = Callable[[Exchange], Awaitable[Response]]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ENDPOINTS: tuple[tuple[re.Pattern[str], dict[str, Handler]], ...] = (
    (
        re.compile(r"(?P<name>.+)/manifests/(?P<target>[^/]+)\Z"),
        {"GET": manifests.read, "HEAD": manifests.read, "PUT": manifests.put, "DELETE": manifests.delete},
    ),
    (re.compile(r"(?P<name>.+)/tags/list\Z"), {"GET": manifests.tags}),
    (re.compile(r"(?P<name>.+)/referrers/(?P<target>[^/]+)\Z"), {"GET": manifests.referrers}),
    (re.compile(r"(?P<name>.+)/blobs/uploads/?(?P<target>)\Z"), {"POST": blobs.start}),
    (
        re.compile(r"(?P<name>.+)/blobs/uploads/(?P<target>[^/]+)\Z"),
        {"GET": blobs.status, "PATCH": blobs.patch, "PUT": blobs.put, "DELETE": blobs.cancel},
    ),
    (
        re.compile(r"(?P<name>.+)/blobs/(?P<target>[^/]+)\Z"),
        {"GET": blobs.read, "HEAD": blobs.read, "DELETE": blobs.delete},
    ),
)
_ACTIONS = {"GET": {"pull"}, "HEAD": {"pull"}, "DELETE": {"delete"}}
_SESSION_ACTIONS = {"pull", "push"}


def create_app(storage: Storage | Path, *, settings: ServerSettings | None = None) -> ASGIApp:
    """Create the ASGI application of the registry.

    The caller closes a `Storage` after the server has stopped. A folder is opened here and stays locked until the
    process ends; raises `StackError` if another registry has locked it.
    """
    settings = settings or ServerSettings()
    gate = Gate(settings.login) if settings.login is not None else None
    site = Site(open_storage(storage, settings) if isinstance(storage, Path) else storage, Uploads(), settings, gate)

    async def endpoint(request: Request) -> Response:
        try:
            return await _dispatch(site, request)
        except Refusal as refusal:
            return refusal.response()
        except InvalidInput as error:
            return Refusal("NAME_INVALID", error.reason).response()
        except DiskFull as error:
            logger().warning("%s", error)
            return Refusal("UNKNOWN", "no space left on the registry's disk", status=507).response()
        except (DamagedContent, HostileArchive, OSError) as error:
            logger().error("%s %s failed: %s", request.method, request.url.path, error)
            return Refusal("UNKNOWN", "the registry cannot read or write its files; see its log").response()
        except ClientDisconnect:
            return empty(499)

    routes = [Route("/v2", endpoint, methods=["GET"]), Route("/v2/{rest:path}", endpoint, methods=list(_METHODS))]
    if gate is not None and settings.login is not None and settings.login.bearer:
        routes.append(Route("/token", gate.token, methods=["GET", "POST"]))
    app = Starlette(routes=routes)
    # Redirect URLs would be built from the Host header.
    app.router.redirect_slashes = False
    return app


def open_storage(folder: Path, settings: ServerSettings) -> Storage:
    """Open and lock a folder; raise `StackError` if another registry has locked it."""
    return Storage(folder, most_entries=settings.most_entries, sync=settings.sync)


async def _dispatch(site: Site, request: Request) -> Response:
    rest = request.path_params.get("rest", "")
    if rest in ("", "_catalog"):
        _admit(site.gate, request, CATALOG if rest else {})
        if rest:
            return json_response({"repositories": await asyncio.to_thread(site.storage.names)})
        return json_response({}, headers={"Docker-Distribution-API-Version": "registry/2.0"})
    for pattern, handlers in _ENDPOINTS:
        match = pattern.match(rest)
        if match is None:
            continue
        name, target = match["name"], match["target"] if "target" in pattern.groupindex else ""
        if not is_repository(name):
            raise Refusal("NAME_INVALID", f"not a valid repository name: {name[:100]!r}")
        handler = handlers.get(request.method)
        if handler is None:
            raise Refusal("UNSUPPORTED", f"{request.method} is not allowed for this URL")
        _admit(site.gate, request, _needed(request, name, rest))
        return await handler(Exchange(site, request, name, target))
    return Refusal("NAME_UNKNOWN", "there is no such URL").response()


def _needed(request: Request, name: str, rest: str) -> Access:
    # Cancelling an upload or reading its status requires the permission to push.
    session = re.search(r"/blobs/uploads/", rest) is not None
    actions = frozenset(_SESSION_ACTIONS if session else _ACTIONS.get(request.method, _SESSION_ACTIONS))
    access = repository_access(name, actions)
    source = request.query_params.get("from", "")
    mounts = session and request.method == "POST" and "mount" in request.query_params
    if mounts and source != name and is_repository(source):
        return {**access, **repository_access(source, frozenset({"pull"}))}
    return access


def _admit(gate: Gate | None, request: Request, access: Access) -> None:
    if gate is not None:
        gate.check(request, access)
