"""`python -m cmiclib.cli`, for launchers that start modules, such as torchrun."""

from . import app

app()
