"""The server's log: a line of JSON for each thing that happens, and nothing of what is said."""

import json
import logging
import sys
import time
import traceback
from typing import Any

__all__ = ["configure", "exception", "note", "warn"]

_log = logging.getLogger("voxfast.serve")


class _Lines(logging.Formatter):
    """Records as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name != _log.name:
            line["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            # Where it happened, and not its message, which may quote what a client sent.
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            frames = traceback.extract_tb(error.__traceback__)
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        return json.dumps(line, ensure_ascii=False)


def configure(level: int = logging.INFO) -> None:
    """Let all of voxfast's log, and that of its libraries, go to stderr as lines of JSON.

    The libraries tell no more than warnings, whatever is asked for: their details hold URLs with
    keys, and frames.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    handler.addFilter(_is_ours)
    for name in ("voxfast", "uvicorn", "websockets", "python_multipart"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    _log.setLevel(level)
    # It warns of every write to a client that has gone.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether an error is the server's: uvicorn 0.54 calls these so, which clients cause."""
    message = record.getMessage()
    is_refusal = "without completing handshake" in message  # with an HTTP answer, of a WebSocket
    return not is_refusal and "Invalid UTF-8 sequence received" not in message


def note(event: str, **fields: object) -> None:
    """Something happened."""
    _log.info(event, extra={"fields": fields})


def warn(event: str, **fields: object) -> None:
    """Something is not as it should be."""
    _log.warning(event, extra={"fields": fields})


def exception(event: str, **fields: object) -> None:
    """Something broke; called in an ``except`` block."""
    _log.exception(event, extra={"fields": fields})
