"""A worker process: ``python -m voxfast.batch.worker DESCRIPTOR``, started by the pool.

It gets the settings of a :class:`voxfast.batch.Transcriber`, says that it is ready, or the
exception that keeps it from it, and then answers each recording with a result.
"""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from voxfast.batch.pools import READY
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Settings, Transcriber
from voxfast.errors import VoxfastError


def main() -> None:
    """Work until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends this
    connection: Connection = Connection(int(sys.argv[1]))
    recordings: SimpleQueue[Recording] = SimpleQueue()
    try:
        settings: Settings = connection.recv()
    except (EOFError, OSError):
        return
    threading.Thread(target=_listen, args=(connection, recordings), daemon=True).start()
    try:
        transcriber = Transcriber.of(settings)
    except (VoxfastError, ImportError) as error:
        connection.send(error)
        return
    except Exception as error:
        connection.send(VoxfastError(f"{type(error).__name__}: {error}"))
        return
    connection.send(READY)
    while True:
        connection.send(transcriber(recordings.get()))


def _listen(connection: Connection, recordings: "SimpleQueue[Recording]") -> None:
    """Take recordings; without the driver there is nothing to work for, whatever is going on."""
    try:
        while True:
            recordings.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main()
