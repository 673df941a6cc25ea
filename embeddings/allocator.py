"""glibc's allocator, told to keep what it has.

By default it returns large blocks to the kernel at once, and gets them again, page by page and zeroed, for the next
layer's output: up to half of a small network's time on the CPU. The settings are those of the environment
variables MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_, which would have to be set before
Python starts; mallopt(3) does the same from within. What is kept is bounded by the largest batch.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30
_TOP_PAD_BYTES = 64 << 20
_MMAP_THRESHOLD_BYTES = 32 << 20  # the largest that glibc takes: half of its arenas' size


@cache
def keep_freed_memory() -> bool:
    """Set it for this process, once. False where the C library is another one, and nothing was done."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _TOP_PAD_BYTES),
    )  # fmt: skip
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]  # each one, whatever the others say
    return all(accepted)
