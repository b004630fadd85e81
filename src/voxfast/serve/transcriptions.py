"""``POST /v1/audio/transcriptions``: a file in, its transcript out, whole or as it comes."""

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from voxfast import audio
from voxfast._sniff import demuxer_of
from voxfast._streams import ByteReader
from voxfast.errors import AudioFileError, InvalidOptionError
from voxfast.serve import forms
from voxfast.serve.bridge import PIECE, broken
from voxfast.serve.dialect import Event, Problem, Start
from voxfast.serve.forms import Wanted
from voxfast.serve.hub import Hub, Limits, Seat
from voxfast.serve.live import LiveSession
from voxfast.serve.pieces import Pieces
from voxfast.timed import Segment, Transcript, Word

__all__ = ["PATH", "Job", "endpoint", "limited_body", "while_there"]

PATH = "/v1/audio/transcriptions"
DOOR = "transcriptions"
NAME = "the file"  # in errors: the client's own name for it is nobody's business
_MOST_FIELDS, _LONGEST_FIELD = 2000, 1 << 16

Samples = npt.NDArray[np.float32]


def endpoint(hub: Hub) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint."""

    async def transcriptions(request: Request) -> Response:
        stack = contextlib.AsyncExitStack()
        try:
            seat = stack.enter_context(hub.seat(DOOR, request.scope["voxfast.request_id"]))
            wanted, file = await _read_form(request, hub, stack)
            hub.service.check_model(wanted.model, forms.HOSTED_MODELS)
            job = Job(hub, seat, wanted, stack)
            await job.open(file)
            if wanted.stream:
                return _ServerSentEvents(job, hub, stack.pop_all())
            return await _whole(job, request)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            await stack.aclose()

    return transcriptions


class Job:
    """The transcription of one file."""

    def __init__(
        self, hub: Hub, seat: Seat, wanted: Wanted, stack: contextlib.AsyncExitStack
    ) -> None:
        self._hub, self._seat, self.wanted, self._stack = hub, seat, wanted, stack
        self.request_id = seat.request_id
        self.words: list[Word] = []
        self._first = np.zeros(0, np.float32)
        self._failure: Problem | None = None  # behind the first audio

    async def open(self, file: BinaryIO) -> None:
        """Look at the file, and open a session.

        Raises:
            Problem: if it is no audio, or the model does not take the options.
        """
        wanted = self.wanted
        self._decoder = _Decoder(file, self._hub.model.offline_block_seconds)
        self._stack.push_async_callback(asyncio.to_thread, self._decoder.close)
        length = await self._begin()
        options = Start(
            language=wanted.language,
            prompt=wanted.prompt,
            vocabulary=wanted.vocabulary,
            delay_ms=wanted.delay_ms,
            endpoint_ms=wanted.endpoint_ms,
        )
        try:
            self.session = await LiveSession.open(self._hub.model, options, length)
        except InvalidOptionError as error:
            raise Problem(str(error), "invalid_value", param=_param(error)) from error
        self._stack.callback(self.session.close)

    async def events(self) -> AsyncIterator[Event]:
        """Words and segments as they come.

        Raises:
            Problem: behind all good words, if the audio is damaged or too long.
        """
        failure = self._failure
        samples: Samples | None = self._first
        while samples is not None:
            for at in range(0, len(samples), PIECE):
                piece = samples[at : at + PIECE]
                seconds = len(piece) / audio.SAMPLE_RATE
                if self.session.heard + seconds > self._hub.limits.audio_seconds:
                    failure = _too_long(self._hub.limits.audio_seconds)
                    break
                self._seat.audio_seconds += seconds
                self._hub.metrics.heard(self._seat.door, seconds)
                self.session.insert(piece)
                async for event in self._written():
                    yield event
            if failure is not None:
                break
            try:
                samples = await self._next()
            except Problem as problem:
                failure = problem
                break
        async for event in self._written(finish=True):
            yield event
        if failure is not None:
            raise failure

    async def _begin(self) -> float:
        """Read the first audio; return how long the file is, as far as it matters to the model."""
        whole = self._hub.model._loaded.offline_whole_seconds
        try:
            while (block := await self._next()) is not None:
                self._first = np.concatenate([self._first, block])
                if math.isinf(whole) or len(self._first) > whole * audio.SAMPLE_RATE:
                    return math.inf
        except Problem as problem:
            if not len(self._first):
                raise
            self._failure = problem
        return len(self._first) / audio.SAMPLE_RATE

    async def _written(self, *, finish: bool = False) -> AsyncIterator[Event]:
        events, _ = await self.session.events(finish=finish)
        for event in events:
            if isinstance(event, Word):
                self.words.append(event)
                self._seat.words += 1
                self._hub.metrics.wrote(self._seat.door, 1)
            yield event

    async def _next(self) -> Samples | None:
        """The next block of audio, decoded on a thread; None at the end."""
        try:
            return await asyncio.to_thread(self._decoder.next)
        except AudioFileError as error:
            raise Problem(str(error), "invalid_audio", param="file") from error

    @property
    def transcript(self) -> Transcript:
        """What was written so far."""
        session = self.session
        return Transcript(tuple(self.words), session.heard, self._hub.model.name, session.language)


class _Decoder:
    """Blocks of a file, read on worker threads; one that was abandoned may still be reading."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._blocks = _blocks(file, seconds)
        self._lock = threading.Lock()

    def next(self) -> Samples | None:
        """[N] samples; None at the end. Raises AudioFileError."""
        with self._lock:
            return next(self._blocks, None)

    def close(self) -> None:
        """Free the file."""
        with self._lock:
            self._blocks.close()


def _blocks(file: BinaryIO, seconds: float) -> Generator[Samples, None, None]:
    """Samples of a file at 16 kHz, mono; AudioFileError unless it is audio."""
    reader = ByteReader(file, NAME)
    if not reader.peek(1):
        raise AudioFileError(f"{NAME} is empty")
    if demuxer_of(reader, NAME) is None:
        raise AudioFileError(f"{NAME} does not begin like any audio file")
    file.seek(0)
    yield from audio.stream_pcm(file, block_seconds=seconds, name=NAME)


async def _whole(job: Job, request: Request) -> Response:
    """All of the transcript at once."""

    async def run() -> None:
        async for _ in job.events():
            pass

    await while_there(request.receive, run())
    text, media = forms.to_body(job.wanted, job.transcript)
    return Response(text, media_type=media)


class _ServerSentEvents(Response):
    """Words as they come. The session is freed when the answer ends, or its reader has gone."""

    media_type = "text/event-stream"

    def __init__(self, job: Job, hub: Hub, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._job, self._hub, self._stack = job, hub, stack

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI response."""
        async with self._stack:
            with contextlib.suppress(ClientDisconnect):
                await while_there(receive, self._answer(send))

    async def _answer(self, send: Any) -> None:
        async def put(data: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(self._hub.limits.send_seconds):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        job, pieces = self._job, Pieces()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            number = 0
            async for event in job.events():
                match event:
                    case Word():
                        await put(forms.server_sent(_delta(event, pieces.add(event), job.wanted)))
                    case Segment() if job.wanted.format == "verbose_json":
                        await put(forms.server_sent(_segment(event, number)))
                        number += 1
            await put(forms.server_sent(_done(job)))
            await put(b"data: [DONE]\n\n", more=False)
        except OSError:  # TimeoutError is one
            self._hub.metrics.failed(DOOR, "slow_reader")
        except Exception as error:
            problem = error if isinstance(error, Problem) else broken(DOOR, job.request_id)
            self._hub.metrics.failed(DOOR, problem.code)
            with contextlib.suppress(OSError):
                await put(forms.error_event(problem), more=False)


async def while_there(receive: Any, work: Coroutine[Any, Any, None]) -> None:
    """Do the work as long as the client is there; else raise ClientDisconnect."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving, working = asyncio.create_task(watch()), asyncio.create_task(work)
    try:
        await asyncio.wait({leaving, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(leaving, working, return_exceptions=True)


def _delta(word: Word, text: str, wanted: Wanted) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "transcript.text.delta", "delta": text}
    if wanted.logprobs:
        event["logprobs"] = forms.logprobs([word])
    return {**event, "words": [forms.word_object(word)]}


def _segment(segment: Segment, number: int) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "speaker": "",
    }


def _done(job: Job) -> dict[str, Any]:
    transcript = job.transcript
    event: dict[str, Any] = {
        "type": "transcript.text.done",
        "text": transcript.text,
        "usage": forms.usage(transcript.duration),
    }
    if job.wanted.logprobs:
        event["logprobs"] = forms.logprobs(transcript.words)
    return {**event, "words": [forms.word_object(word) for word in transcript.words]}


# -- The upload


async def _read_form(
    request: Request, hub: Hub, stack: contextlib.AsyncExitStack
) -> tuple[Wanted, BinaryIO]:
    """The fields, and the file.

    Raises:
        Problem: if the form is malformed, too long, comes too slowly, or has no file.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(
            "the body must be multipart/form-data, with the audio as the field file",
            "invalid_form",
        )
    body = limited_body(request, hub.limits)
    parser = MultiPartParser(
        request.headers, body, max_files=1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD
    )
    stack.callback(_close_files, parser)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(f"the form cannot be read: {error.message}", "invalid_form") from error
    stack.push_async_callback(form.close)
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise Problem("the form has no file in the field file", "missing_file", param="file")
    fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    upload.file.seek(0)
    return forms.read_fields(fields), upload.file


def _close_files(parser: MultiPartParser) -> None:
    """Close the file of a form that is cut off, which Starlette 1.10 forgets."""
    for file in getattr(parser, "_files_to_close_on_error", ()):
        file.close()


async def limited_body(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body, as long as it comes, and no more of it than is allowed.

    Raises:
        Problem: if it is too long, before any of it comes if the client says so; or too slow.
    """
    most, idle = limits.upload_bytes, limits.idle_seconds
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    size = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Problem(f"nothing of the file came for {idle:g} s", "idle_timeout", 408) from None
        if chunk is None:
            return
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        yield chunk


def _too_large(most: int) -> Problem:
    return Problem(
        f"a request of more than {most} bytes; send the audio compressed, or in parts",
        "file_too_large",
        413,
        param="file",
    )


def _too_long(seconds: float) -> Problem:
    return Problem(
        f"the file has more than {seconds:g} s of audio; send it in parts",
        "audio_too_long",
        413,
        param="file",
    )


def _param(error: InvalidOptionError) -> str | None:
    names = {"vocabulary": "keywords", "language": "language", "prompt": "prompt"}
    return next((param for name, param in names.items() if name in str(error)), None)
