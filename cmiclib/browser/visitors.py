"""Limit the number of visitors: each one's kernel holds the model in memory.

Voilà's server loads this module, which therefore imports nothing else of the library.
"""

from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int


class FewKernels(AsyncMappingKernelManager):
    """Starts a kernel while fewer than ``most`` run; else the answer is 503."""

    most = Int(4, min=1, help="kernels at once").tag(config=True)
    _starting = 0

    async def start_kernel(self, *arguments: Any, **options: Any) -> str:  # type: ignore[override]
        """Start a kernel, or raise the HTTPError."""
        if len(self) + self._starting >= self.most:
            raise HTTPError(503, f"{self.most} visitors are here already; close a tab, or try again later")
        self._starting += 1
        try:
            return await super().start_kernel(*arguments, **options)
        finally:
            self._starting -= 1
