"""What glibc does with memory, seen in fresh processes."""

import ctypes
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLIBC = hasattr(ctypes.CDLL(None), "mallopt")
KEEP = "from tasks import memory; memory.keep()"


def told(script: str) -> int:
    """The number that a process prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(done.stdout)


def faults(prelude: str) -> int:
    """Pages that the kernel clears for a thread that fills 48 MB forty times."""
    return told(f"""{prelude}
import resource, threading
thread = threading.Thread(target=lambda: [len(bytearray(b"x") * (48 << 20)) for _ in range(40)])
thread.start(); thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)""")


def held(after: str) -> int:
    """KiB that a process still holds after it has filled and dropped 48 MiB, and then this."""
    return told(f"""{KEEP}
import os, subprocess
_ = len(bytearray(b"x") * (48 << 20))
{after}
print(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())], text=True))""")


def test_what_threads_free_is_kept_for_what_they_ask_for_next() -> None:
    found = [faults(prelude) for prelude in ("", KEEP)]
    assert found[1] < found[0] * (0.25 if GLIBC else 1.5), found  # elsewhere it has to do no harm


def test_what_was_kept_is_given_back_when_told() -> None:
    kept, given = held(""), held("memory.give_back()")
    assert given < (kept - 0.9 * (48 << 10) if GLIBC else 1.1 * kept), (kept, given)
