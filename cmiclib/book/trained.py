"""The trained model of a chapter: a chapter that does not import this module does not depend on the training's code."""

from ..training.loop import train_or_load
from ..training.run import Run
from . import OpenChapter


def trained_run(chapter: OpenChapter) -> Run:
    """Return the run of the chapter's configuration on its benchmark: loaded if present, else trained."""
    return train_or_load(chapter.config, chapter.benchmark, chapter.outputs / "runs")
