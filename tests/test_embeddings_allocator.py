"""What the allocator keeps, shares and gives back; in processes of their own, since it is set once for each."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's allocator")

THREADS = """
import ctypes, re, sys, threading
from embeddings.allocator import share_heaps
if sys.argv[1] != "0":
    print(share_heaps(int(sys.argv[1])))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
together = threading.Barrier(6)
def work():
    together.wait()
    libc.free(libc.malloc(100_000))
    together.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
[each.start() for each in threads]
[each.join() for each in threads]
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(len(re.findall("<heap nr=", open(sys.argv[2]).read())))
"""

GIVING = """
import ctypes
from pathlib import Path
from embeddings.allocator import give_back, keep_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
large, last = libc.malloc(100 << 20), libc.malloc(4096)
ctypes.memset(ctypes.c_void_p(large), 1, 100 << 20)
libc.free(large)
kept = resident()
print(give_back(), (kept - resident()) >> 20)
"""


def run(code: str, *arguments: str, **environment: str) -> list[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@glibc
@pytest.mark.parametrize(("cores", "heaps"), [(1, 1), (4, 1), (12, 3)])
def test_threads_share_a_heap_for_each_four_cores(tmp_path: object, cores: int, heaps: int) -> None:
    assert run(THREADS, str(cores), f"{tmp_path}/heaps") == ["True", str(heaps)]


@glibc
def test_without_it_each_thread_has_a_heap_of_its_own(tmp_path: object) -> None:
    assert run(THREADS, "0", f"{tmp_path}/heaps") == ["7"]


@glibc
def test_what_the_environment_says_of_heaps_wins(tmp_path: object) -> None:
    assert run(THREADS, "4", f"{tmp_path}/heaps", MALLOC_ARENA_MAX="2") == ["False", "2"]


@glibc
def test_memory_that_was_freed_stays_until_it_is_given_back() -> None:
    returned, mebibytes = run(GIVING)
    assert returned == "True" and int(mebibytes) >= 90
