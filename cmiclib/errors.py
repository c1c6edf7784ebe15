"""Every error that a user can cause: which file, what is wrong, how to fix it."""

from pathlib import Path


class CMICError(Exception):
    """Base of all expected errors; the command line prints it without a traceback and exits with 2.

    Args:
        problem: what is wrong, in one sentence.
        path: the file or folder that it concerns, if any.
        fix: what the user can do, in one sentence.
    """

    def __init__(self, problem: str, *, path: str | Path | None = None, fix: str | None = None):
        self.problem, self.path, self.fix = problem, path, fix
        where = f"{path}: " if path is not None else ""
        cure = f"\n  How to fix: {fix}" if fix else ""
        super().__init__(f"{where}{problem}{cure}")


class ConfigError(CMICError):
    """A configuration names a profile, key or value that does not exist or does not fit."""


class BenchmarkError(CMICError):
    """A prepared benchmark is missing, damaged or contradicts itself."""


class MissingArrayError(BenchmarkError):
    """A benchmark lacks an optional array: points, voxels or amodal masks."""


class SourceError(CMICError):
    """Raw data cannot be turned into a benchmark."""


class MeshError(CMICError):
    """A mesh cannot be read, has no faces, or its coordinates contain NaN or Inf."""


class PassingError(MeshError):
    """A mesh could not be read now, which says nothing about its file: memory, time, or the file is being written."""


class ImageError(CMICError):
    """A photo or mask cannot be read or does not fit."""


class CheckpointError(CMICError):
    """Weights or a run folder are missing, damaged or belong to another model."""


class TrainingError(CMICError):
    """Training cannot go on, for example because the loss is NaN."""


class BookError(CMICError):
    """A chapter does not exist, has no such parameter, or failed."""


class StorageError(CMICError):
    """Writing failed, usually because the disk is full; no half-written file stays."""
