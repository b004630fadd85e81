"""The gate before every door: ASGI middleware that checks requests and gives them an id."""

import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from voxfast.serve import log, site
from voxfast.serve.dialect import Problem
from voxfast.serve.doors import Door, openai_error
from voxfast.serve.hub import Hub
from voxfast.serve.security import Policy, RateLimit, bearer_keys

__all__ = ["OPEN_PATHS", "Gate", "headers_of"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health"}) | site.OPEN_PATHS
"""Answered without a key: whether the server lives, the files of the page, and nothing else."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Gate:
    """Lets requests and WebSockets in that the policy allows; refuses others in a door's form."""

    def __init__(self, app: App, policy: Policy, hub: Hub, doors: Mapping[str, Door]) -> None:
        self._app, self._policy, self._hub, self._doors = app, policy, hub, doors
        self._rate = RateLimit(hub.limits.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begin, headers = time.monotonic(), headers_of(scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope["voxfast.request_id"] = request_id
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close" and not status:
                status = 403
            if kind.endswith(".start") or kind == "websocket.accept":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        key = None
        try:
            try:
                key = self._check(scope, headers)
            except Problem as problem:
                await self._refuse(problem, scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        finally:
            log.note(
                "request",
                request_id=request_id,
                path=scope["path"][:100],
                status=status,
                key=key,
                seconds=round(time.monotonic() - begin, 3),
            )

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        """The name of the key; raises Problem for whoever may not come in."""
        host = headers.get("host")
        self._policy.check_host(host)
        self._policy.check_origin(headers.get("origin"), host)
        if scope["path"] in OPEN_PATHS:
            return None
        address = (scope.get("client") or ("unknown",))[0]
        query = scope.get("query_string", b"").decode("latin-1")
        try:
            key = self._policy.check_key(bearer_keys(headers, query))
        except Problem:
            self._rate.check(f"address {address}")
            raise
        self._rate.check(key or f"address {address}")
        return key

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._doors.get(scope["path"])
        self._hub.metrics.failed("http" if door is None else door.name, problem.code)
        await refuse(problem, door, scope, receive, send)


async def refuse(
    problem: Problem, door: Door | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request or a WebSocket's handshake with an HTTP error in the door's form."""
    form = openai_error if door is None else door.error
    body = json.dumps(form(problem, scope["voxfast.request_id"])).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.retry_after is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after))
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        kind = "websocket.http.response"
    elif problem.status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": f"{kind}.start", "status": problem.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


def headers_of(scope: Scope) -> dict[str, str]:
    """Headers by lower-case name; several of one name are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
