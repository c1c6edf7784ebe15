"""Keep the memory of large tensors instead of giving it back to Linux and asking for it again.

glibc asks the kernel for each block of more than 128 kB anew, and the kernel clears each page of it when it is first
touched. A network on a CPU makes such blocks in every layer: a third of its time went into that. With
``CMIC_MALLOC=default`` in the environment, everything stays as glibc does it.
"""

import ctypes
import os
import sys

LIMITS = {"MMAP_THRESHOLD": (-3, 1 << 29), "TRIM_THRESHOLD": (-1, 1 << 29), "TOP_PAD": (-2, 1 << 26)}
"""glibc's options: their numbers in malloc.h and values in bytes. At most so much stays with an idle process."""


def keep_memory() -> bool:
    """Set glibc's limits for this process and those that it starts; returns whether they are set.

    Elsewhere than under glibc, and where the environment sets one of them already, nothing changes.
    """
    names = {name: f"MALLOC_{name}_" for name in LIMITS}
    if sys.platform != "linux" or os.environ.get("CMIC_MALLOC") == "default":
        return False
    if any(name in os.environ for name in names.values()):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    for name, (number, value) in LIMITS.items():
        if not mallopt(number, value):
            if name == "MMAP_THRESHOLD":  # glibc before 2.35 takes no more than 32 MB; the other two would not help
                return False
            continue
        os.environ[names[name]] = str(value)
    return True
