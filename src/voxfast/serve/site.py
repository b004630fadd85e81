"""The page at ``/``: its files, which anybody may read, and what it asks the server."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voxfast._version import version
from voxfast.serve.hub import Hub

__all__ = ["OPEN_PATHS", "site_routes"]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = {
    "/": "index.html",
    **{
        f"/page/{name}": name
        for name in (
            "audio.js",
            "icon.svg",
            "listen.js",
            "page.js",
            "style.css",
            "transcript.js",
            "worklet.js",
        )
    },
}
OPEN_PATHS = frozenset(_FILES)
"""Answered without a key: the page asks for it."""
_HEADERS = {
    # Nothing of other hosts is loaded, nothing inline runs, and no page shows this one in a frame.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def site_routes(hub: Hub) -> list[Route]:
    """The routes of the page."""
    routes = [Route(path, _file(name)) for path, name in _FILES.items()]
    return [*routes, Route("/page/about.json", _about(hub))]


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("voxfast.serve").joinpath("page", name).read_bytes()
    media_type = _TYPES[name.rpartition(".")[2]]

    async def file(request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    return file


def _about(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    """What the page shows of the server; needs a key, if the server has one."""
    service = hub.service

    async def about(request: Request) -> Response:
        return JSONResponse(
            {
                "version": version(),
                "model": service.model,
                "description": service.description,
                "delays_ms": service.delays_ms,
                "languages": service.languages,
            },
            headers={"cache-control": "no-store"},
        )

    return about
