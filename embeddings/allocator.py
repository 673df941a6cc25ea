"""glibc's allocator, told to keep what it has.

By default it returns large blocks to the kernel at once, and gets them again, page by page and zeroed, for the next
layer's output: 28,000 page faults a batch of EfficientNet-Lite0, and up to half of its time. With the settings
below there are none. The environment variables MALLOC_MMAP_MAX_, MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_ would do
the same, but only if set before Python starts; mallopt(3) does it from within.

Blocks that are freed are used again, so memory stays at its peak instead of falling between batches; what lies free
at the heap's end beyond 512 MiB still goes back.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 512 << 20
_GROW_BYTES = 64 << 20  # at least this much at once: the size of a thread's heap


@cache
def keep_freed_memory() -> bool:
    """Set it for this process, once. False where the C library is another one, and nothing was done.

    The threshold from which blocks are mapped one by one cannot be set above 32 MiB, less than a wide layer's
    output at batch 8; so that mapping is switched off altogether.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _GROW_BYTES))
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]  # each, whatever the others say
    return all(accepted)
