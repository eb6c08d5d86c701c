"""Typed errors: each says what was given, what is needed and how to fix it.

Every error of this package is an `AIFSError` and, beside it, the built-in type a caller would expect
(`ValueError`, `TypeError`, ...), so that both `except AIFSError` and `except ValueError` work.
"""


class AIFSError(Exception):
    """Base class of every error that this package raises on purpose."""


class InvalidInputError(AIFSError, ValueError):
    """A value, array or data set that cannot be worked with."""


class InvalidConfigError(AIFSError, ValueError):
    """A configuration whose fields contradict each other, the model or the data."""


class HeadError(AIFSError, ValueError):
    """The classification head cannot be found, or cannot be wrapped."""


class CheckpointMismatchError(AIFSError, ValueError):
    """A saved state does not belong to the configuration or model it is loaded into."""


class CheckpointWriteError(AIFSError, OSError):
    """A checkpoint could not be written (disk full, read-only, ...); those written before it are as they were."""


class PushFailedError(AIFSError, OSError):
    """The Hub did not take an adapter; the message says where its files lie and how to push them again."""


class ProcessLostError(AIFSError, RuntimeError):
    """Another process of a distributed run has ended, so this one cannot go on."""


class NonFiniteError(AIFSError, FloatingPointError):
    """A loss, latent or attribution became NaN or infinite."""


class NothingFoundError(AIFSError, ValueError):
    """A spurious attribute is asked about, and none is known: nothing was found, or nobody has looked."""


class NotTrainedError(NothingFoundError):
    """An adapter is asked what it found before it was trained."""


class MissingDependencyError(AIFSError, ImportError):
    """An optional package is needed and not installed; the message names the extra."""


class ModelNotFoundError(AIFSError, OSError):
    """A model is neither a local directory nor to be had from the Hub right now."""


class DataNotFoundError(AIFSError, FileNotFoundError):
    """A file of a data set is missing; the message says where to get it and where to put it."""
