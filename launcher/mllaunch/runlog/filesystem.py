"""Which file system a folder lies on, because SQLite's WAL needs memory that all its users share."""

from __future__ import annotations

import os

# Known to be local to one machine. Anything else (nfs, cifs, lustre, fuse.*, 9p, ...) may have users on
# other machines, between which a memory map is not shared: https://www.sqlite.org/wal.html, "all
# processes must be on the same host".
LOCAL = frozenset(
    "bcachefs btrfs ext2 ext3 ext4 f2fs jfs nilfs2 overlay ramfs reiserfs tmpfs vfat xfs zfs".split()  # noqa: SIM905
)


def is_local(folder: str, mounts: str = "/proc/self/mounts") -> bool:
    """Whether a folder is known to lie on a file system of this machine alone."""
    try:
        with open(mounts, "rb") as table:
            return kind_of(os.path.realpath(folder), table.read()) in LOCAL
    except OSError:
        return False


def kind_of(path: str, table: bytes) -> str:
    """The type of the file system that a real path lies on, by a table as in proc_mounts(5).

    "" if the table does not say.
    """
    path = path.rstrip("/") + "/"
    best, kind = "", ""
    for line in table.splitlines():
        fields = line.split(b" ")
        if len(fields) < 3:
            continue
        point = os.fsdecode(_unescaped(fields[1])).rstrip("/") + "/"
        # The later of two mounts on one point hides the earlier.
        if path.startswith(point) and len(point) >= len(best):
            best, kind = point, os.fsdecode(fields[2])
    return kind


def _unescaped(field: bytes) -> bytes:
    for escape, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, character)
    return field
