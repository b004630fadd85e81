"""Everything that voxfast raises on its own account.

Each class also derives from the built-in exception that callers would expect, so
``except ValueError`` keeps working. Messages name the value and the remedy.
"""


class VoxfastError(Exception):
    """Base of all errors that voxfast raises."""


class InvalidAudioError(VoxfastError, ValueError):
    """Audio of the wrong dtype, shape, sample rate or amplitude, or with NaN in it."""


class AudioFileError(VoxfastError, OSError):
    """A file that cannot be opened or decoded, or that ends too early."""


class InvalidOptionError(VoxfastError, ValueError):
    """An option (delay, language, prompt, ...) that the model does not have."""


class ModelNotFoundError(VoxfastError, LookupError):
    """A model name that is neither embedded, nor a folder, nor on the hub."""


class CheckpointError(VoxfastError, ValueError):
    """A checkpoint that is broken, incomplete, or of another architecture."""


class SessionClosedError(VoxfastError, RuntimeError):
    """A session that was used after ``finish()`` or ``close()``."""


class ForkedProcessError(VoxfastError, RuntimeError):
    """A model that was asked for, or used, in the fork of a process that had loaded one."""


class DatasetError(VoxfastError, ValueError):
    """A data set, or a file of results, that a benchmark cannot use."""
