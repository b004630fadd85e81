"""The server as an ASGI application: HTTP routes, and a WebSocket route for each door."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from voxfast.serve import transcriptions
from voxfast.serve.bridge import broken, converse
from voxfast.serve.dialect import Handshake, Problem
from voxfast.serve.doors import DOORS, Door, openai_error
from voxfast.serve.gate import App, Gate, headers_of, refuse
from voxfast.serve.hub import Hub
from voxfast.serve.listen_file import listen_file
from voxfast.serve.metrics import CONTENT_TYPE
from voxfast.serve.security import KEY_HEADERS, Policy, query_of
from voxfast.serve.site import site_routes

__all__ = ["build_app"]


def build_app(
    hub: Hub, policy: Policy, *, doors: Sequence[Door] = DOORS, routes: Sequence[BaseRoute] = ()
) -> App:
    """The application.

    Args:
        hub: the model and the limits.
        policy: who may come in.
        doors: the protocols on WebSockets.
        routes: further ones, such as pages.
    """
    inner = Starlette(
        routes=[
            Route("/health", _health(hub)),
            Route("/metrics", _metrics(hub)),
            Route("/v1/models", _models(hub)),
            Route("/v1/models/{name:path}", _model(hub)),
            Route(transcriptions.PATH, transcriptions.endpoint(hub), methods=["POST"]),
            Route("/v1/listen", listen_file(hub), methods=["POST"]),
            *site_routes(hub),
            *(WebSocketRoute(door.path, _socket(door, hub)) for door in doors),
            *routes,
        ],
        exception_handlers={Problem: _problem, HTTPException: _http_error, Exception: _broken},
    )
    inner.state.hub = hub
    app: App = Gate(inner, policy, hub, {door.path: door for door in doors})
    if policy.origins:
        app = CORSMiddleware(
            app,
            allow_origins=sorted(policy.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["X-Request-Id"],
        )
    return app


class _Socket:
    """A WebSocket as a :class:`voxfast.serve.bridge.Transport`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def send(self, frame: str | bytes) -> None:
        try:
            if isinstance(frame, str):
                await self._socket.send_text(frame)
            else:
                await self._socket.send_bytes(frame)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError("the client has gone") from error

    async def close(self, code: int, reason: str) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(code, reason.encode()[:120].decode(errors="ignore"))


def _socket(door: Door, hub: Hub) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint of a door."""

    async def endpoint(socket: WebSocket) -> None:
        request_id = socket.scope["voxfast.request_id"]
        try:
            dialect = door.new(_handshake(socket), hub.service)
            with hub.seat(door.name, request_id) as seat:
                await socket.accept(_protocol(socket, door))
                transport = _Socket(socket)
                await converse(dialect, transport, hub, seat, idle_seconds=door.idle_seconds)
        except Exception as error:
            problem = error if isinstance(error, Problem) else broken(door.name, request_id)
            hub.metrics.failed(door.name, problem.code)
            if socket.application_state is WebSocketState.CONNECTED:
                await socket.close(problem.close_code, problem.message)
            elif socket.application_state is WebSocketState.CONNECTING:
                await refuse(problem, door, socket.scope, socket.receive, socket.send)

    return endpoint


def _protocol(socket: WebSocket, door: Door) -> str | None:
    """The subprotocol that is agreed on: a browser ends the connection if none is."""
    offered = socket.scope.get("subprotocols", [])
    return next((name for name in offered if name in door.protocols), None)


def _handshake(socket: WebSocket) -> Handshake:
    headers = headers_of(socket.scope)
    headers = {name: value for name, value in headers.items() if name not in KEY_HEADERS}
    return Handshake(socket.scope["voxfast.request_id"], query_of(socket.url.query), headers)


# -- HTTP


def _health(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    async def health(request: Request) -> Response:
        if hub.is_draining:
            return JSONResponse({"status": "ending"}, 503)
        return JSONResponse({"status": "ok"})

    return health


def _metrics(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(request: Request) -> Response:
        return Response(hub.metrics.text(), media_type=CONTENT_TYPE)

    return metrics


def _model_object(hub: Hub) -> dict[str, object]:
    service = hub.service
    return {
        "id": service.model,
        "object": "model",
        "created": service.created,
        "owned_by": "voxfast",
        "description": service.description,
    }


def _models(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model_object(hub)]})

    return models


def _model(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    async def model(request: Request) -> Response:
        hub.service.check_model(request.path_params["name"])
        return JSONResponse(_model_object(hub))

    return model


# -- Errors in OpenAI's form


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    request.app.state.hub.metrics.failed("http", error.code)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.retry_after is None:
        headers["x-should-retry"] = "false"
    body = openai_error(error, request.scope["voxfast.request_id"])
    return JSONResponse(body, error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {404: "there is nothing here", 405: "this path takes another method"}
    problem = Problem(
        message.get(error.status_code, error.detail),
        {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request"),
        error.status_code,
        "not_found_error" if error.status_code == 404 else "invalid_request_error",
    )
    return await _problem(request, problem)


async def _broken(request: Request, error: Exception) -> Response:
    return await _problem(request, broken("http", request.scope["voxfast.request_id"]))
