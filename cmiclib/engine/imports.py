"""torchvision and timm in a third of the time: without torch's compiler, which both import for two decorators.

Each function returns the library. The compiler is imported as soon as something compiles.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

UTILS = "torch._dynamo.utils"


def load_timm() -> Any:
    """Import timm."""
    with _without_compiler():
        import timm
    return timm


def load_torchvision() -> Any:
    """Import torchvision."""
    with _without_compiler():
        import torchvision
    return torchvision


class _Utils(ModuleType):
    """Stands for the compiler's module until one of its functions is called; anything else imports the real one."""

    @staticmethod
    def is_compile_supported(device: str) -> bool:
        """Answer torchvision's question, asked when its operators run."""
        return import_module(UTILS).is_compile_supported(device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        sys.modules.pop(UTILS, None)
        return getattr(import_module(UTILS), name)


@contextmanager
def _without_compiler() -> Iterator[None]:
    if UTILS in sys.modules or "timm" in sys.modules:
        yield
        return
    disable, stand_in = torch.compiler.disable, _Utils(UTILS)
    sys.modules[UTILS] = stand_in
    torch.compiler.disable = _leave_alone  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(UTILS) is stand_in:
            del sys.modules[UTILS]


def _leave_alone(function: Callable | None = None, **_: Any) -> Any:
    """What is decorated stays visible to the compiler, which only meets it in models that are not used here."""
    return function if function is not None else _leave_alone
