"""Every error that a user can cause: which file, what is wrong, how to fix it."""

from pathlib import Path


class CMICError(Exception):
    """Base of all expected errors; the command line prints it without a traceback and exits with 2.

    Args:
        problem: what is wrong, one sentence.
        path: the file or folder it concerns, if any.
        fix: what the user can do, one sentence.
    """

    def __init__(self, problem: str, *, path: str | Path | None = None, fix: str | None = None):
        self.problem, self.path, self.fix = problem, path, fix
        where = f"{path}: " if path is not None else ""
        cure = f"\n  How to fix: {fix}" if fix else ""
        super().__init__(f"{where}{problem}{cure}")


class ConfigError(CMICError):
    """A profile, key or value of the configuration that does not exist or does not fit."""


class BenchmarkError(CMICError):
    """A prepared benchmark that is missing, damaged or contradicts itself."""


class MissingArrayError(BenchmarkError):
    """An optional array (points, voxels, amodal masks) that this benchmark does not have."""


class SourceError(CMICError):
    """Raw data that cannot be turned into a benchmark."""


class MeshError(CMICError):
    """A mesh that cannot be read, has no faces or holds coordinates that are not numbers."""


class ImageError(CMICError):
    """A photo or mask that cannot be read or does not fit."""


class CheckpointError(CMICError):
    """Weights or a run folder that are missing, damaged or of another model."""


class TrainingError(CMICError):
    """Training that cannot go on, such as a loss that is not a number."""


class BookError(CMICError):
    """A chapter that does not exist, takes no such parameter or failed."""


class StorageError(CMICError):
    """A write that failed, most often for want of space; nothing half-written stays."""
