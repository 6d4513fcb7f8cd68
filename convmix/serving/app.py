"""The routes: what comes in is read, queued for the workers and answered; every refusal is JSON."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from convmix.serving import metrics as metrics
from convmix.serving.batching import Full, Queue
from convmix.serving.document import describe, operation
from convmix.serving.hosts import Hosts
from convmix.serving.limits import RequestLimits
from convmix.serving.messages import ExplainMessage, ImageMessage
from convmix.serving.metrics import ServerMetrics
from convmix.serving.middleware import RequestMiddleware, as_response
from convmix.serving.model_info import ModelFacts
from convmix.serving.problem import Problem
from convmix.serving.requests import read_explain, read_predict
from convmix.serving.worker_pool import WorkerPool

PAGE = Path(__file__).parent / "page"
PROTECTED = ("/v1/", "/metrics")  # need the key; the page itself is no secret, and asks for it
ROUTES = ("/v1/predict", "/v1/explain", "/v1/model", "/health", "/ready", "/metrics", "/openapi.json", "/")
_CODES = {404: "not_found", 405: "method_not_allowed"}
_RETRY_S = 1
_LOOK_S = 0.05


def create_app(
    facts: ModelFacts,
    *,
    limits: RequestLimits,
    answers: WorkerPool,
    explanations: WorkerPool,
    exposition: ServerMetrics,
    hosts: Hosts,
    key: str | None = None,
    allow_origins: Sequence[str] = (),
) -> FastAPI:
    """The application in front of two pools; it starts neither, but `explanations` on the first wish for one."""
    app = FastAPI(title="convmix", docs_url=None, redoc_url=None, openapi_url=None)
    describe(app, limits=limits, key_needed=key is not None)
    app.add_middleware(RequestMiddleware, limits=limits, exposition=exposition, hosts=hosts, key=key, protected=PROTECTED, routes=ROUTES)
    if allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(allow_origins), allow_methods=["GET", "POST"], allow_headers=["authorization", "x-api-key"]
        )
    _answer_mistakes(app, exposition)

    @app.post("/v1/predict", **operation("predict"))
    async def predict(request: Request) -> Response:
        order = await read_predict(request, limits)
        orders = [ImageMessage(p.data, p.name, order.top, order.threshold, order.nearest) for p in order.pictures]
        rows = await _replies(answers.queue, orders, limits.time_s)
        return JSONResponse({"model": {"name": facts.name, "task": facts.task}, "predictions": rows})

    @app.post("/v1/explain", **operation("explain"))
    async def explain(request: Request) -> Response:
        wish = await read_explain(request, limits)
        if not facts.methods:
            raise Problem("cannot_explain", "an exported model cannot be explained; serve the run that it was exported from")
        if wish.label is not None and wish.label not in facts.labels:
            raise Problem("unknown_label", f"label: the model does not know {wish.label[:100]!r}; GET /v1/model lists its labels")
        explanations.start()
        while not explanations.is_decided:  # the first wish waits for the worker, in its own time
            await asyncio.sleep(_LOOK_S)
        [answer] = await _replies(explanations.queue, [ExplainMessage(wish.picture.data, wish.method, wish.label)], limits.time_s)
        return JSONResponse(answer)

    @app.get("/v1/model", **operation("model"))
    async def model() -> Response:
        return JSONResponse(facts.answer)

    @app.get("/health", **operation("health"))
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/ready", **operation("ready"))
    async def ready() -> Response:
        if not answers.is_ready:
            raise Problem("not_ready", "no worker can answer yet", headers={"retry-after": str(_RETRY_S)})
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", **operation("metrics"))
    async def prometheus() -> Response:
        return Response(exposition.text(), headers={"content-type": metrics.CONTENT_TYPE})

    @app.get("/openapi.json", **operation("openapi"))
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    @app.get("/", **operation("page"))
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    app.mount("/page", StaticFiles(directory=PAGE, check_dir=False))
    return app


async def _replies(queue: Queue, orders: Sequence[Any], time_s: float) -> list[dict[str, Any]]:
    """What the workers say to each order; the first Problem among them is raised."""
    try:
        jobs = queue.submit(orders)
    except Full as full:
        words = f"{full.waiting} images wait already; try again"
        raise Problem("queue_full", words, headers={"retry-after": str(_RETRY_S)}) from None
    try:
        replies = await asyncio.wait_for(asyncio.gather(*(asyncio.wrap_future(job.reply) for job in jobs)), time_s)
    except TimeoutError:
        raise Problem("timeout", f"the answer was not there within {time_s:g} s") from None
    finally:
        queue.abandon([job for job in jobs if not job.reply.done()])
    for i, reply in enumerate(replies):
        if isinstance(reply, Problem):
            raise reply.of_image(i)
    return replies


def _answer_mistakes(app: FastAPI, exposition: ServerMetrics) -> None:
    """Every exception as JSON, counted by its code."""

    def said(problem: Problem) -> Response:
        exposition.failed(problem.code)
        return as_response(problem)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return said(error)

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "bad_request")
        return said(Problem(code, f"{request.method} {request.url.path[:100]}: {error.detail}", headers=error.headers))

    async def gone(request: Request, error: Exception) -> Response:
        return said(Problem("bad_request", "the body ended before it was whole"))

    async def broken(request: Request, error: Exception) -> Response:  # uvicorn logs the traceback
        return said(Problem("internal", "a mistake of the server; its log says more"))

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        Problem: refused, HTTPException: no_route, ClientDisconnect: gone, Exception: broken,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
