"""How glibc, which has the memory of programs on Linux, may deal with what they give back.

As it comes, it gives what is large back to the system, and the next call gets new pages, which cost
as much as a short loss. Whether it does is a matter of what the process did before: of the same
program one call in two may be without.
"""

import os
import resource
import sys

_FOREVER = 2**34  # bytes: of no use below so many

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
KEPT = {
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {
            "mmap_threshold": _FOREVER,
            "trim_threshold": _FOREVER,
            "arena_max": 1,  # a thread's own arena never holds more than 64 MiB
        }.items()
    )
}


def keep() -> None:
    """Starts the running script once more, with memory that is kept, unless it is already."""
    if KEPT.items() - os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | KEPT)


def new_pages() -> int:
    """How many pages this process has got so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
