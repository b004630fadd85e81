"""Archives: many recordings, all processors of a machine or a cluster, and nothing lost.

::

    from voxfast.batch import transcribe_files

    if __name__ == "__main__":
        state = transcribe_files(["calls/"], "transcripts", formats=["json", "srt"])
        print(state.done, "done,", state.failed, "failed")

Processes on this machine, or Ray's actors on a cluster (``cluster=Cluster("auto")``), turn
recordings into texts; only the process that called writes files, so none is ever half written.
``voxfast batch`` is the same as a command.
"""

from voxfast.batch.cluster import Cluster
from voxfast.batch.inputs import collect
from voxfast.batch.job import Progress, transcribe_files
from voxfast.batch.mapping import TranscribeBatch
from voxfast.batch.pools import WorkersLostError
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result, Settings, Transcriber

__all__ = [
    "Cluster",
    "Progress",
    "Recording",
    "Result",
    "Settings",
    "TranscribeBatch",
    "Transcriber",
    "WorkersLostError",
    "collect",
    "transcribe_files",
]
