"""glibc's allocator, told to keep what it has, and to keep it in few heaps.

By default it returns large blocks to the kernel at once, and gets them again, page by page and zeroed, for the next
layer's output: 28,000 page faults a batch of EfficientNet-Lite0, and up to half of its time. With the settings
of `keep_freed_memory` there are none. The environment variables MALLOC_MMAP_MAX_, MALLOC_TRIM_THRESHOLD_ and
MALLOC_TOP_PAD_ would do the same, but only if set before Python starts; mallopt(3) does it from within.

Blocks that are freed are used again, so memory stays at its peak instead of falling between batches; what lies free
at the heap's end beyond 512 MiB still goes back. That makes the number of peaks count: a thread takes heaps of
its own (up to eight a core), and none of them is of use to another thread. `share_heaps` bounds them, and `give_back`
returns what start-up left behind.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_KEEP_BYTES = 512 << 20
_GROW_BYTES = 64 << 20  # at least this much at once: the size of a thread's heap

CORES_A_HEAP = 4
"""A thread of the backbone holds its heap's lock for at most 2.5 % of the time (measured: 2.8 of 113 ms a batch), so
that four of them wait for each other a fraction of that."""


@cache
def keep_freed_memory() -> bool:
    """Set it for this process, once. False where the C library is another one, and nothing was done.

    The threshold from which blocks are mapped one by one cannot be set above 32 MiB, less than a wide layer's
    output at batch 8; so that mapping is switched off altogether.
    """
    return _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _GROW_BYTES))


@cache
def share_heaps(cores: int) -> bool:
    """One heap for each four cores, for all threads together. False where nothing was done.

    Threads that have a heap already keep it, so this comes before they start. MALLOC_ARENA_MAX, where it is set, wins.
    """
    return "MALLOC_ARENA_MAX" not in os.environ and _set((_M_ARENA_MAX, max(1, cores // CORES_A_HEAP)))


def give_back() -> bool:
    """Return all free pages of all heaps to the kernel. False where there were none, or the C library is another one.

    Dear where memory is in use, which then takes page faults to get again; right after what will not come back.
    """
    return _is_glibc() and ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0)) == 1


def _set(*settings: tuple[int, int]) -> bool:
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]  # each, whatever the others say
    return all(accepted)


@cache
def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
