"""The most memory that a process has held: for contestants in processes of their own."""

import re
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.timing import Prepare


def peak() -> int:
    """Bytes of this process's memory at its peak.

    Linux counts what the starting process held into ru_maxrss, so that it is asked only where the
    system keeps no VmHWM, which begins with the process's own program.
    """
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
        if found:
            return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def with_peak(prepare: Prepare) -> Callable[[], tuple[Any, int]]:
    """A contestant whose result is the other one's and the peak of its process so far."""
    run = prepare()

    def again() -> tuple[Any, int]:
        result = run()
        return result, peak()

    return again
