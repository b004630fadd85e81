"""The exceptions of voxfast.

Each class also derives from the built-in exception that callers expect, so
``except ValueError`` keeps working. Messages name the value and the remedy.
"""


class VoxfastError(Exception):
    """Base of all exceptions of voxfast."""


class InvalidAudioError(VoxfastError, ValueError):
    """Audio with a wrong dtype, shape, sample rate or amplitude, or with NaN."""


class AudioFileError(VoxfastError, OSError):
    """A file that cannot be opened or decoded, or is truncated."""


class InvalidOptionError(VoxfastError, ValueError):
    """An unknown option (delay, language, prompt, ...) or an invalid value."""


class ModelNotFoundError(VoxfastError, LookupError):
    """A name that is neither an embedded model, nor a folder, nor on the hub."""


class CheckpointError(VoxfastError, ValueError):
    """A checkpoint that is broken, incomplete, or of another architecture."""


class SessionClosedError(VoxfastError, RuntimeError):
    """Use of a session after ``finish()`` or ``close()``."""


class ForkedProcessError(VoxfastError, RuntimeError):
    """Use of a model in the fork of a process that had loaded one."""


class DatasetError(VoxfastError, ValueError):
    """A data set or a file of results that a benchmark cannot use."""
