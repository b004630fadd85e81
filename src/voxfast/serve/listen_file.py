"""``POST /v1/listen``: Deepgram's answer to a whole recording."""

import asyncio
import contextlib
import datetime
import hashlib
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from voxfast.serve.bridge import broken
from voxfast.serve.deepgram import alternative, model_id, model_info
from voxfast.serve.deepgram_query import (
    HOSTED,
    check_refused,
    deepgram_error,
    expected_terms,
    flag,
    language,
    number,
)
from voxfast.serve.dialect import Handshake, Problem
from voxfast.serve.forms import Wanted
from voxfast.serve.hub import Hub
from voxfast.serve.security import query_of
from voxfast.serve.transcriptions import Job, limited_body, while_there
from voxfast.timed import Transcript

__all__ = ["listen_file"]

DOOR = "deepgram_file"
IN_MEMORY = 1 << 20  # bytes of an upload; a longer one waits in a temporary file
_REFUSED = ("summarize", "topics", "intents", "sentiment", "translate", "encoding")


def listen_file(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint."""

    async def endpoint(request: Request) -> Response:
        request_id: str = request.scope["voxfast.request_id"]
        try:
            return await _answer(request, hub, request_id)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            problem = error if isinstance(error, Problem) else broken(DOOR, request_id)
            hub.metrics.failed(DOOR, problem.code)
            headers = (
                {} if problem.retry_after is None else {"retry-after": f"{problem.retry_after}"}
            )
            return JSONResponse(deepgram_error(problem, request_id), problem.status, headers)

    return endpoint


async def _answer(request: Request, hub: Hub, request_id: str) -> Response:
    handshake = Handshake(request_id, query_of(request.url.query))
    wanted, utterances = _wanted(handshake), flag(handshake, "utterances")
    hub.service.check_model(wanted.model, HOSTED)
    if request.headers.get("content-type", "").startswith("application/json"):
        raise Problem("this server fetches no url: send the audio as the body", param="url")
    async with contextlib.AsyncExitStack() as stack:
        seat = stack.enter_context(hub.seat(DOOR, request_id))
        file = stack.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115
        digest = await _receive(request, hub, file)  # type: ignore[arg-type]
        job = Job(hub, seat, wanted, stack)
        await job.open(file)  # type: ignore[arg-type]

        async def run() -> None:
            async for _ in job.events():
                pass

        await while_there(request.receive, run())
        return JSONResponse(_document(job.transcript, request_id, digest, utterances))


def _wanted(handshake: Handshake) -> Wanted:
    """What the query asks for; raises Problem for what this server does not do."""
    check_refused(handshake, _REFUSED)
    return Wanted(
        model=handshake.one("model"),
        language=language(handshake.one("language")),
        vocabulary=expected_terms(handshake),
        delay_ms=number(handshake, "delay_ms", 0, 10_000),
    )


async def _receive(request: Request, hub: Hub, file: BinaryIO) -> str:
    """Put the body into the file; returns its SHA-256."""
    digest = hashlib.sha256()
    async for chunk in limited_body(request, hub.limits):
        digest.update(chunk)
        await asyncio.to_thread(file.write, chunk)
    file.seek(0)
    return digest.hexdigest()


def _document(
    transcript: Transcript, request_id: str, digest: str, utterances: bool
) -> dict[str, Any]:
    model = model_id(transcript.model)
    found = alternative(transcript.words)
    results: dict[str, Any] = {"channels": [{"alternatives": [found]}]}
    if utterances:
        results["utterances"] = [
            {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "channel": 0,
                "id": str(uuid.uuid4()),
                **alternative(segment.words),
            }
            for segment in transcript.segments
        ]
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {
        "metadata": {
            "transaction_key": "deprecated",
            "request_id": request_id,
            "sha256": digest,
            "created": created.replace("+00:00", "Z"),
            "duration": round(transcript.duration, 3),
            "channels": 1,
            "models": [model],
            "model_info": {model: model_info(transcript.model)},
        },
        "results": results,
    }
