"""How a process ended that is no child of ours, from Linux 6.15 on.

When supervisor and shim were both killed, the task belongs to init, and the supervisor that takes over cannot wait
for it. A descriptor of the process (pidfd_open(2)), opened while the task lives, tells its exit once init has
reaped it: ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT, see linux/pidfd.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Optional

from mllaunch_agent import system
from mllaunch_agent.probes import processes

_SYS_PIDFD_OPEN = 434  # the same on every architecture; os.pidfd_open came with Python 3.9
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), which had 64 bytes in its first version
_PIDFD_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=Q52xi")  # mask, what is not asked for here, exit_code as wait(2) gives it


def watch(pid: int, start_ticks: int) -> Optional[int]:
    """A descriptor of the process that started then; None if it is gone, or the kernel is older than 5.3."""
    fd: int = system.libc().syscall(_SYS_PIDFD_OPEN, pid, 0)
    if fd < 0:
        return None
    # Asked after the opening, so that the descriptor cannot be that of a later process with the same number.
    if processes.start_ticks(pid) != start_ticks:
        os.close(fd)
        return None
    return fd


def exit_status(fd: int) -> Optional[int]:
    """wait(2)'s status of a process that has been reaped; None while it has not, or if the kernel does not tell."""
    info = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info, True)
    except OSError:
        return None
    mask, status = _INFO.unpack(info)
    return int(status) if mask & _PIDFD_INFO_EXIT else None
