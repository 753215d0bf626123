"""The receiver's OpenAPI description, made of its configuration: one path a source, with the headers it needs."""

from typing import Any

from soci_pipeline import __version__
from soci_pipeline.webhook.configuration import (
    Configuration,
    GenericSource,
    GitHubSource,
    GitLabSource,
    QueueSource,
    Source,
)
from soci_pipeline.webhook.events import ImageEvent, PushEvent

_ERRORS = {
    "400": "The body is not whole.",
    "401": "The credentials are absent or wrong.",
    "404": "There is no such source.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "Events are application/json.",
    "422": "A verified event of no known shape, with an unsound name, or with parameters that are not valid.",
    "429": "Too many requests.",
    "503": "The event could not be stored; deliver it again.",
}


def document(configuration: Configuration) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    sources = [each for each in configuration.sources if not isinstance(each, QueueSource)]
    paths: dict[str, Any] = {f"/webhooks/{each.name}": {"post": _operation(each)} for each in sources}
    paths["/healthz"] = {"get": _health()}
    paths["/metrics"] = {"get": _metrics()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "soci-pipeline webhook receiver", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _operation(source: Source) -> dict[str, Any]:
    return {
        "operationId": f"receive-{source.name}",
        "summary": f"Receive an event of the source {source.name} ({source.kind}).",
        "parameters": [_header(name, schema) for name, schema in _headers(source).items()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _SHAPES.get(source.kind, {"type": "object"})}},
        },
        "responses": {"202": _response("Stored, known already, or of no interest.", "Accepted")}
        | {status: _response(text, "Error") for status, text in _ERRORS.items()},
    }


def _headers(source: Source) -> dict[str, dict[str, Any]]:
    match source:
        case GitHubSource():
            signature = {"type": "string", "pattern": "^sha256=[0-9a-f]{64}$"}
            return {"X-Hub-Signature-256": signature, "X-GitHub-Event": {"type": "string", "enum": ["push", "ping"]}}
        case GitLabSource() if source.tokens:
            event = {"type": "string", "enum": ["Push Hook", "Tag Push Hook"]}
            return {"X-Gitlab-Token": {"type": "string", "minLength": 1}, "X-Gitlab-Event": event}
        case GitLabSource():
            return _STANDARD | {"X-Gitlab-Event": {"type": "string", "enum": ["Push Hook", "Tag Push Hook"]}}
        case GenericSource():
            return _STANDARD
        case QueueSource():
            return {}


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "schema": schema}


def _response(text: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content}


def _health() -> dict[str, Any]:
    return {
        "operationId": "health",
        "summary": "Whether events can be stored and are handed on.",
        "responses": {"200": _response("Well.", "Health"), "503": _response("Not well.", "Health")},
    }


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "Metrics in Prometheus' text format.",
        "responses": {"200": {"description": "The metrics.", "content": content}},
    }


def _event(model: type[PushEvent | ImageEvent]) -> dict[str, Any]:
    schema = model.model_json_schema()
    # Two kinds are told apart by it, so a sender has to say what has a default here.
    return schema | {"required": ["kind", *schema["required"]]}


_STANDARD: dict[str, dict[str, Any]] = {
    "webhook-id": {"type": "string", "minLength": 1, "maxLength": 256},
    "webhook-timestamp": {"type": "string", "pattern": "^[0-9]{1,12}$"},
    "webhook-signature": {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]{43}=$"},
}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_COMMITS = {
    "type": "array",
    "items": {"type": "object", "properties": {"added": _TEXTS, "removed": _TEXTS, "modified": _TEXTS}},
}
_SHAPES: dict[str, dict[str, Any]] = {
    "github": {
        "type": "object",
        "required": ["ref", "after", "repository"],
        "properties": {
            "ref": {"type": "string"},
            "after": {"type": "string"},
            "repository": {
                "type": "object",
                "required": ["full_name", "clone_url"],
                "properties": {"full_name": {"type": "string"}, "clone_url": {"type": "string"}},
            },
            "commits": _COMMITS,
        },
    },
    "gitlab": {
        "type": "object",
        "required": ["object_kind", "ref", "after", "project"],
        "properties": {
            "object_kind": {"type": "string"},
            "ref": {"type": "string"},
            "after": {"type": "string"},
            "checkout_sha": {"type": ["string", "null"]},
            "project": {
                "type": "object",
                "required": ["id", "path_with_namespace", "git_http_url"],
                "properties": {
                    "id": {"type": "integer"},
                    "path_with_namespace": {"type": "string"},
                    "git_http_url": {"type": "string"},
                },
            },
            "commits": _COMMITS,
        },
    },
    "generic": {"oneOf": [{"$ref": "#/components/schemas/Push"}, {"$ref": "#/components/schemas/Image"}]},
}
_SCHEMAS: dict[str, Any] = {
    "Push": _event(PushEvent),
    "Image": _event(ImageEvent),
    "Accepted": {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"enum": ["stored", "duplicate", "ignored"]},
            "event": {"type": "string"},
            "reason": {"type": "string"},
            "rules": {"type": "object"},
            "runs": {"type": "array", "items": {"type": "object"}},
        },
    },
    "Error": {
        "type": "object",
        "required": ["error", "detail"],
        "properties": {"error": {"type": "string"}, "detail": {"type": "string"}},
    },
    "Health": {
        "type": "object",
        "required": ["ok"],
        "properties": {"ok": {"type": "boolean"}, "threads": {"type": "object"}, "pending": {"type": "integer"}},
    },
}
