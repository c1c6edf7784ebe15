"""How many may use the app at once: each visitor's kernel holds the model, and a machine has only so much memory.

Voilà's server loads this module; it imports nothing of the library, which would take seconds and a gigabyte.
"""

from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int


class FewKernels(AsyncMappingKernelManager):
    """Starts a kernel only while fewer than so many are there; else the answer is 503, and nothing is started."""

    most = Int(4, min=1, help="kernels at once").tag(config=True)
    _starting = 0

    async def start_kernel(self, *arguments: Any, **options: Any) -> str:  # type: ignore[override]
        """Start a kernel.

        Raises:
            HTTPError: 503, there are too many.
        """
        if len(self) + self._starting >= self.most:
            raise HTTPError(503, f"{self.most} visitors are here already; close a tab, or try again later")
        self._starting += 1
        try:
            return await super().start_kernel(*arguments, **options)
        finally:
            self._starting -= 1
