"""Processes and their descendants, read from /proc. See proc(5) for every format used here.

Nothing raises: a process that has vanished, or that we may not look at, is None.
"""

from __future__ import annotations

import os
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

__all__ = [
    "Stat",
    "children",
    "command",
    "descendants",
    "environ_has",
    "io_bytes",
    "is_same",
    "parse_stat",
    "pss_bytes",
    "start_ticks",
    "stat",
    "tree",
    "user_of",
]

PROC = "/proc"
CHILDREN_PAGE = 3072  # a read of fewer bytes than this has reached the end of a children file
COMMAND_BYTES = 4096  # of a command line
ZOMBIE = "Z"


class Stat(NamedTuple):
    """One line of /proc/PID/stat, as far as it is used.

    pid and start_ticks together name a process for good (until the next boot). own_ticks: CPU time of the
    process itself; reaped_ticks: of those descendants that it has waited for. rss_pages counts shared pages.
    virtual_bytes: 0 for one that is going: it has given its memory back already, and with it its environment.
    """

    pid: int
    name: str
    state: str
    ppid: int
    own_ticks: int
    reaped_ticks: int
    threads: int
    start_ticks: int
    rss_pages: int
    virtual_bytes: int = 0

    @property
    def is_dead(self) -> bool:
        """Dead and waiting to be reaped. A zombie with threads is a main thread that ended before the
        others."""
        return self.state == ZOMBIE and self.threads <= 1


def parse_stat(line: bytes) -> Stat:
    """Parse /proc/PID/stat. The name may hold spaces, parentheses and newlines; the last ")" ends it."""
    head, _, tail = line.rpartition(b")")
    pid, _, name = head.partition(b" (")
    field = tail.split(None, 22)  # field[0] is the third in proc(5)
    return Stat(
        int(pid),
        name.decode("utf-8", "replace"),
        field[0].decode(),
        int(field[1]),
        int(field[11]) + int(field[12]),
        int(field[13]) + int(field[14]),
        int(field[17]),
        int(field[19]),
        int(field[21]),
        int(field[20]),
    )


def stat(pid: int, proc: str = PROC) -> Optional[Stat]:
    """The process's line of /proc/PID/stat; None when there is no such process."""
    line = _read("%s/%d/stat" % (proc, pid))
    try:
        return parse_stat(line) if line else None
    except (ValueError, IndexError):
        return None


def start_ticks(pid: int) -> Optional[int]:
    """When the process started, in clock ticks since boot; None when there is no such process."""
    found = stat(pid)
    return None if found is None else found.start_ticks


def is_same(pid: int, started: int) -> bool:
    """Whether ``pid`` is still the process that started at ``started`` ticks, and not dead or another one."""
    found = stat(pid)
    return found is not None and found.start_ticks == started and not found.is_dead


def children(pid: int, threads: Optional[int] = None, proc: str = PROC) -> List[int]:
    """The direct children of a process: those of each of its threads.

    threads: how many it has, when known, which saves listing them. The kernel may leave out a child if
    another one ends during the read (proc_pid_children(5)); ask again where completeness matters.
    """
    if threads == 1:
        tasks = [str(pid)]
    else:
        try:
            tasks = os.listdir("%s/%d/task" % (proc, pid))
        except OSError:
            return []
    found: List[int] = []
    for task in tasks:
        data = _read("%s/%d/task/%s/children" % (proc, pid, task), more_from=CHILDREN_PAGE)
        if data:
            found.extend(map(int, data.split()))
    return found


def tree(roots: Mapping[int, int], proc: str = PROC) -> Dict[int, Stat]:
    """Every process of the trees below ``roots``, which maps pid to start_ticks. Roots are included if still
    the same."""
    found: Dict[int, Stat] = {}
    for pid, started in roots.items():
        root = stat(pid, proc)
        if root is not None and root.start_ticks == started:
            found[pid] = root
    if os.path.exists("%s/thread-self/children" % proc):
        stack = list(found.values())
        while stack:
            parent = stack.pop()
            for pid in children(parent.pid, parent.threads, proc):
                if pid not in found:
                    child = stat(pid, proc)
                    if child is not None:
                        found[pid] = child
                        stack.append(child)
        return found
    return below(found, _scan(proc))  # a kernel without CONFIG_PROC_CHILDREN


def below(found: Mapping[int, Stat], everybody: Iterable[Stat]) -> Dict[int, Stat]:
    """``found`` and all its descendants among ``everybody``. Pure."""
    by_parent: Dict[int, List[Stat]] = {}
    for process in everybody:
        by_parent.setdefault(process.ppid, []).append(process)
    result = dict(found)
    stack = list(result)
    while stack:
        for child in by_parent.get(stack.pop(), ()):
            if child.pid not in result:
                result[child.pid] = child
                stack.append(child.pid)
    return result


def descendants(pids: Iterable[int], proc: str = PROC) -> List[int]:
    """Every living process below ``pids``, these themselves excluded; zombies are no longer living.

    A process that forks while this looks may be missed: whoever wants them all gone asks until the answer is
    empty.
    """
    roots = {}
    for pid in pids:
        root = stat(pid, proc)
        if root is not None:
            roots[pid] = root.start_ticks
    return [pid for pid, found in tree(roots, proc).items() if pid not in roots and not found.is_dead]


def io_bytes(pid: int, proc: str = PROC) -> Optional[Tuple[int, int]]:
    """(read, written) bytes that reached storage, children that were waited for included; None if not
    readable.

    Needs the rights of ptrace, so another user's process is None.
    """
    data = _read("%s/%d/io" % (proc, pid))
    return parse_io(data) if data else None


def parse_io(data: bytes) -> Optional[Tuple[int, int]]:
    """Parse /proc/PID/io."""
    fields = data.split()
    try:
        return int(fields[fields.index(b"read_bytes:") + 1]), int(fields[fields.index(b"write_bytes:") + 1])
    except (ValueError, IndexError):
        return None


def pss_bytes(pid: int, proc: str = PROC) -> Optional[int]:
    """Resident memory with shared pages divided among those who share them. Dear: the kernel walks all page
    tables."""
    data = _read("%s/%d/smaps_rollup" % (proc, pid))
    for line in (data or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def user_of(pid: int) -> Optional[str]:
    """The effective user's name, or number as text where it has none. The owner of /proc/PID would not do:
    it is root for every process that may not be dumped."""
    for line in (_read("%s/%d/status" % (PROC, pid)) or b"").splitlines():
        if line.startswith(b"Uid:"):
            return user_name(int(line.split()[2]))
    return None


def user_name(uid: int) -> str:
    """The name of a user, or the number as text. May wait for the name service."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def command(pid: int, secrets: Sequence[str] = ()) -> Optional[str]:
    """The command line on one printable line, at most 4096 bytes of it; ``[name]`` where there is none.

    Its secrets are masked, those declared in ``secrets`` too: it is shown to others and put on record.
    """
    data = _read(
        "%s/%d/cmdline" % (PROC, pid), more_from=1
    )  # all of it: half a secret would be known by nothing
    if data:
        return printable(_masked(data.rstrip(b"\0"), secrets)[:COMMAND_BYTES])
    found = stat(pid)
    return None if found is None else printable(("[%s]" % found.name).encode())


def _masked(cmdline: bytes, secrets: Sequence[str]) -> bytes:
    """A command line with spaces for the NULs between its words, and its secrets masked."""
    from mllaunch_agent import redaction  # not for the sampler

    words = cmdline.decode("utf-8", "surrogateescape").split("\0")
    line = " ".join(redaction.mask_argv(words, secrets))
    # Again, by spaces: for ``sh -c "... --api-key VALUE"``, and for processes that write a title over their words.
    line = " ".join(redaction.mask_argv(line.split(" "), secrets))
    return redaction.mask_text(line, secrets).encode("utf-8", "surrogateescape")


def open_for_writing(pids: Iterable[int], proc: str = PROC) -> Set[str]:
    """The files that processes have open for writing, each as its process names it."""
    found = set()
    for pid in pids:
        folder = "%s/%d/fd" % (proc, pid)
        try:
            numbers = os.listdir(folder)
        except OSError:
            continue
        for number in numbers:
            try:
                with open("%s/%d/fdinfo/%s" % (proc, pid, number), "rb") as file:
                    lines = [line.split() for line in file]  # proc(5): "flags:", in octal
                flags = next(int(words[1], 8) for words in lines if words[0] == b"flags:")
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    found.add(os.readlink("%s/%s" % (folder, number)))
            except OSError:
                continue
    return found


def printable(data: bytes) -> str:
    """The bytes as text in which everything but visible characters and spaces is escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def environ_has(pid: int, entry: bytes) -> bool:
    """Whether the process was started with ``entry`` (``b"NAME=value"``) in its environment. False if not
    readable."""
    data = _read("%s/%d/environ" % (PROC, pid), more_from=1)
    return data is not None and entry in data.split(b"\0")


def _scan(proc: str) -> List[Stat]:
    try:
        names = os.listdir(proc)
    except OSError:
        return []
    found = [stat(int(name), proc) for name in names if name.isdigit()]
    return [process for process in found if process is not None]


def _read(path: str, more_from: int = 1 << 30) -> Optional[bytes]:
    """The file's first 4096 bytes, or None. All of it, if a read of at least ``more_from`` bytes means there
    may be more.

    open() would cost three times as much: the sampler reads two hundred of these a second.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = chunk = os.read(file, 4096)
        while len(chunk) >= more_from:
            chunk = os.read(file, 4096)
            data += chunk
        return data
    except OSError:
        return None
    finally:
        os.close(file)
