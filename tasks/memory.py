"""What glibc is told of memory; with another C library these do nothing."""

import ctypes

MALLOPT = {"M_TRIM_THRESHOLD": (-1, 1 << 30), "M_MMAP_THRESHOLD": (-3, 1 << 26), "M_ARENA_MAX": (-8, 1)}
"""Its options' numbers in malloc.h and our values, in bytes the first two."""


def keep() -> None:
    """Has it keep what is freed for what comes next, in one heap for all threads.

    Arrays of some megabytes otherwise go back to the kernel each time, which clears their pages anew: a fourth of the
    search's CPU seconds.  Later threads alone are bound by it, so it comes first.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in MALLOPT.values():
            libc.mallopt(option, value)


def give_back() -> None:
    """Has it give back what is free: where a process has read much, and other processes need the room."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
