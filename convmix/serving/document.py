"""The OpenAPI document: every route with what it takes, what it gives and every refusal."""

import copy
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from convmix.explanation.methods import NAMES
from convmix.serving import schema
from convmix.serving.limits import RequestLimits
from convmix.serving.problem import PROBLEMS

_MODELS: Sequence[type[BaseModel]] = (
    schema.PredictRequest, schema.PredictAnswer, schema.ExplainRequest, schema.ExplainAnswer, schema.ModelAnswer, schema.ServerState,
    schema.ErrorAnswer,
)  # fmt: skip
_BODY = (
    "bad_request", "invalid_field", "bad_base64", "no_images", "too_many_images", "too_slow", "length_required", "request_too_large",
    "image_too_large", "unsupported_content_type", "unreadable_image", "not_only_an_image", "queue_full", "internal", "no_answer",
    "timeout",
)  # fmt: skip
_ALWAYS = ("wrong_host", "too_many_connections")
_FILE = {"type": "string", "format": "binary", "contentMediaType": "image/*"}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(model)}}


def _refusals(codes: Sequence[str]) -> dict[str, Any]:
    """status -> what it means, the codes of one status together."""
    said: dict[str, list[str]] = {}
    for code in codes:
        status, words = PROBLEMS[code]
        said.setdefault(str(status), []).append(f"`{code}`: {words}")
    answers: dict[str, Any] = {s: {"description": "; ".join(w), "content": _json(schema.ErrorAnswer)} for s, w in sorted(said.items())}
    if "429" in answers:
        seconds = {"description": "seconds", "required": True, "schema": {"type": "integer", "minimum": 1}}
        answers["429"]["headers"] = {"Retry-After": seconds}
    return answers


def _body(model: type[BaseModel], form: dict[str, Any], required: str) -> dict[str, Any]:
    of_form = {"type": "object", "properties": form, "required": [required], "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": of_form}} | _json(model)}


_PREDICT_FORM = {
    "images": {"type": "array", "items": _FILE, "minItems": 1},
    "top": {"type": "integer", "minimum": 1, "maximum": 2**31},
    "threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "nearest": {"type": "integer", "minimum": 0, "maximum": schema.MOST_NEAREST},
}
_EXPLAIN_FORM = {
    "image": _FILE,
    "method": {"type": "string", "enum": list(NAMES)},
    "label": {"type": "string"},
}
_HTML = {"text/html": {"schema": {"type": "string"}}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}

# name -> summary, content of 200, refusals, request body
_OPERATIONS: dict[str, tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any] | None]] = {
    "predict": ("Answer for images", _json(schema.PredictAnswer), _BODY, _body(schema.PredictRequest, _PREDICT_FORM, "images")),
    "explain": (
        "Show where a class is seen in an image", _json(schema.ExplainAnswer), (*_BODY, "unknown_label", "cannot_explain"),
        _body(schema.ExplainRequest, _EXPLAIN_FORM, "image"),
    ),
    "model": ("What is served", _json(schema.ModelAnswer), (), None),
    "health": ("Whether the process lives", _json(schema.ServerState), (), None),
    "ready": ("Whether a worker can answer", _json(schema.ServerState), ("not_ready",), None),
    "metrics": ("Numbers for Prometheus", _TEXT, (), None),
    "openapi": ("This document", _OBJECT, (), None),
    "page": ("The page for people", _HTML, (), None),
}  # fmt: skip
_PROTECTED = ("predict", "explain", "model", "metrics")


def operation(name: str) -> dict[str, Any]:
    """The arguments of a route's decorator: the document's part on it."""
    summary, content, codes, body = _OPERATIONS[name]
    answers = {"200": {"description": summary, "content": content}} | _refusals([*codes, *_ALWAYS])
    extra = {"responses": answers} | ({"requestBody": body} if body else {})
    return {"summary": summary, "operation_id": name, "openapi_extra": extra}


def describe(app: FastAPI, *, limits: RequestLimits, key_needed: bool) -> None:
    """Let `app.openapi()` give the whole document, with the limits of this server, and the key where there is one."""
    written: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not written:
            written.update(_document(app, limits, key_needed))
        return written

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI, limits: RequestLimits, key_needed: bool) -> dict[str, Any]:
    from fastapi.openapi.utils import get_openapi

    paths = copy.deepcopy(get_openapi(title="convmix", version=_version(), routes=app.routes)["paths"])
    _, definitions = models_json_schema([(m, "validation") for m in _MODELS], ref_template="#/components/schemas/{model}")
    schemas = definitions["$defs"]
    schemas["PredictRequest"]["properties"]["images"]["maxItems"] = limits.images
    form = paths["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    form["properties"]["images"]["maxItems"] = limits.images
    for path in paths.values():
        for route in path.values():
            route["responses"] = {k: v for k, v in route["responses"].items() if v.get("content", {}) or k != "200"}
            if key_needed and route["operationId"] in _PROTECTED:
                route["security"] = [{"bearer": []}, {"header": []}]
                route["responses"] |= _refusals(["unauthorized"])
    components: dict[str, Any] = {"schemas": schemas}
    if key_needed:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"}, "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }  # fmt: skip
    return {"openapi": "3.1.0", "info": {"title": "convmix", "version": _version()}, "paths": paths, "components": components}


def _version() -> str:
    from importlib.metadata import version

    return version("convmix")
