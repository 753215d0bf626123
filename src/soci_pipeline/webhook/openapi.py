"""Generate the receiver's OpenAPI description from its configuration: one path per source, with its headers."""

from typing import Any

from soci_pipeline._version import __version__
from soci_pipeline.webhook.configuration import Configuration
from soci_pipeline.webhook.events import ImageEvent, PushEvent
from soci_pipeline.webhook.sources.source import HttpSource, Schema

_ERRORS = {
    "400": "The body is incomplete, or its length is ambiguous.",
    "401": "The credentials are missing or wrong.",
    "404": "Unknown source.",
    "408": "The body did not arrive before the timeout.",
    "413": "The body is too large.",
    "415": "Events must be application/json.",
    "422": "A verified event with an unsupported format, an invalid name, or invalid parameters.",
    "429": "Too many requests.",
    "503": "The event could not be stored; deliver it again.",
}


def document(configuration: Configuration) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    sources = [each for each in configuration.sources if isinstance(each, HttpSource)]
    paths: dict[str, Any] = {f"/webhooks/{each.name}": {"post": _operation(each)} for each in sources}
    paths["/healthz"] = {"get": _health()}
    paths["/metrics"] = {"get": _metrics()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "soci-pipeline webhook receiver", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _operation(source: HttpSource) -> dict[str, Any]:
    return {
        "operationId": f"receive-{source.name}",
        "summary": f"Receive an event of the source {source.name} ({source.kind}).",
        "parameters": [_header(name, schema) for name, schema in source.header_schemas.items()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": source.body_schema}},
        },
        "responses": {"202": _response("Stored, already known, or ignored.", "Accepted")}
        | {status: _response(text, "Error") for status, text in _ERRORS.items()},
    }


def _header(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "schema": schema}


def _response(text: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content}


def _health() -> dict[str, Any]:
    return {
        "operationId": "health",
        "summary": "Whether events can be stored and are dispatched.",
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
    # `kind` selects the schema, so a sender must set it although the model has a default.
    return schema | {"required": ["kind", *schema["required"]]}


_TEXTS = {"type": "array", "items": {"type": "string"}}
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
        "properties": {
            "ok": {"type": "boolean"},
            "threads": {"type": "object"},
            "pending": {"type": "integer"},
            "faults": _TEXTS,
        },
    },
}
