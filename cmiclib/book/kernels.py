"""Kernels that start at once: forked from a process that has imported what chapters import.

A chapter's imports cost eight CPU seconds, half of them PyTorch's. Python's fork server, a process without threads,
pays them once; it has run no computation, so a forked kernel behaves as a new one. Where there is no ``fork``, as on
Windows, kernels start as everywhere else.
"""

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

INLINE = "module://matplotlib_inline.backend_inline"
USAGE = ("user_seconds", "system_seconds", "page_faults")
ALIVE = set[Any]()
"""Processes of kernels that run, and some that have ended."""


class PlainKernelManager(AsyncKernelManager):  # type: ignore[misc]
    """A manager whose kernels :func:`end_all` ends, where there is no fork."""

    used: ClassVar[dict[str, float]] = {}

    async def _async_post_start_kernel(self, **settings: Any) -> None:
        if process := getattr(self.provisioner, "process", None):
            ALIVE.add(process)
        await super()._async_post_start_kernel(**settings)


class ForkedKernelManager(AsyncKernelManager):  # type: ignore[misc]
    """A manager for nbclient whose kernels are forked; `counting` makes one that says what its kernels used."""

    used: ClassVar[dict[str, float]] = {}

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.provisioner = _Forking(parent=self, kernel_spec=self.kernel_spec)


def counting() -> type[ForkedKernelManager]:
    """Return a manager of its own count, ``used``: seconds in its kernels' code and in the system, pages touched.

    A kernel that was killed adds nothing.
    """
    return type("CountingKernelManager", (ForkedKernelManager,), {"used": dict.fromkeys(USAGE, 0.0)})


def end_all(kill: bool = False) -> None:
    """Interrupt each kernel that runs once, or ``kill`` it, so that the threads which wait for them end."""
    for process in list(ALIVE):
        with suppress(OSError):  # it is just starting, or has ended
            if kill:
                process.kill()
            elif not getattr(process, "interrupted", False):
                process.send_signal(signal.SIGINT if isinstance(process, _Process) else signal.SIGTERM)
                process.interrupted = True


class _Forking(LocalProvisioner):  # type: ignore[misc]
    async def launch_kernel(self, cmd: list[str], **settings: Any) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"{__package__}.preloaded"])
        reader, writer = context.Pipe(duplex=False)
        folder, variables = str(settings.get("cwd") or Path.cwd()), dict(settings.get("env") or os.environ)
        process = context.Process(target=_serve, args=(cmd[cmd.index("-f") :], folder, variables, writer))
        process.start()
        writer.close()
        used = self.parent.used if self.parent else {}
        self.process = _Process(process, reader, used)  # type: ignore[assignment]
        self.pid = self.pgid = process.pid
        return self.connection_info


class _Process:
    """What a provisioner asks of a process, as `subprocess.Popen` has it."""

    stdin = stdout = stderr = None

    def __init__(self, process: Any, reader: Connection, used: dict[str, float]):
        self.process, self.pid, self.reader, self.used = process, process.pid, reader, used
        ALIVE.add(self)

    def poll(self) -> int | None:
        if not self.reader.closed and self.reader.poll():
            with suppress(EOFError):  # killed
                for name, value in self.reader.recv().items():
                    self.used[name] = self.used.get(name, 0.0) + value
            self.reader.close()
        if self.process.exitcode is not None:
            ALIVE.discard(self)
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.process.exitcode is None:
            os.killpg(self.pid, number)  # also to processes that it has started

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(arguments: list[str], folder: str, variables: dict[str, str], writer: Connection) -> None:
    """Be a kernel, then say what it used."""
    from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

    import matplotlib as mpl
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # so that a signal to the kernel's group reaches its own children, and nobody else
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    mpl.rcParams["backend"] = INLINE  # the kernel sets a variable, which is read at the import, long ago here
    IPKernelApp.launch_instance(argv=arguments)
    usages = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
    totals = ((sum(values)) for values in zip(*((u.ru_utime, u.ru_stime, u.ru_minflt) for u in usages), strict=True))
    writer.send(dict(zip(USAGE, totals, strict=True)))
