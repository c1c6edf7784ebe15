"""What nearly every chapter imports; :mod:`.kernels` imports it once and forks the chapters' kernels from there."""

import pandas  # noqa: F401
from ipykernel import kernelapp  # noqa: F401

from .. import figures, metrics  # noqa: F401
from ..engine.imports import load_timm
from ..evaluation import report  # noqa: F401
from . import tables, trained  # noqa: F401

load_timm()
