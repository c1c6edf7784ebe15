"""The public door to run folders and the authors' checkpoints, which live in :mod:`cmiclib.training.run`."""

from .training.run import Run, load_reference_checkpoint

__all__ = ["Run", "load_reference_checkpoint"]
