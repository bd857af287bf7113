"""How much memory this process may have."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

RESIDENT = 1 << 29
"""Bytes of images up to which a set may be in memory as a whole. What is larger is read from its
file where it is needed, and cannot be written into: the system would count it as memory."""


def host_memory() -> int:
    """Bytes of the machine's memory that this process may have."""
    return min(_limits())


def _limits() -> Iterator[int]:
    """What the machine has, what `ulimit -v` leaves beside code, and what control groups allow."""
    import resource

    page = os.sysconf("SC_PAGE_SIZE")
    yield page * os.sysconf("SC_PHYS_PAGES")
    if sys.platform != "linux":
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        size, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
        yield max(0, most - page * (size - resident))
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        root, name = Path("/sys/fs/cgroup"), "memory.max"
        if controllers:  # the first version of control groups
            root, name = root / "memory", "memory.limit_in_bytes"
        if controllers and "memory" not in controllers.split(","):
            continue
        folder = root / own.lstrip("/")
        for file in (place / name for place in (folder, *folder.parents)):
            # Inside a container the path is one of the host's, and only the root is there.
            if file.is_relative_to(root) and file.is_file() and (text := file.read_text()).strip():
                yield from (int(text),) if text.strip().isdigit() else ()
