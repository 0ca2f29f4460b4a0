from __future__ import annotations

from pathlib import Path

import pytest

from mllaunch.runlog.filesystem import is_local, kind_of

MOUNTS = b"""\
overlay / overlay rw 0 0
/dev/sda1 /home ext4 rw 0 0
server:/export /home/me/lab nfs4 rw 0 0
server:/a /mnt/with\\040space nfs rw 0 0
/dev/sdb /data xfs rw 0 0
server:/data /data nfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "overlay"),
        ("/tmp", "overlay"),
        ("/home", "ext4"),
        ("/homes", "overlay"),
        ("/home/me/laboratory", "ext4"),
        ("/home/me/lab", "nfs4"),
        ("/home/me/lab/deep/er", "nfs4"),
        ("/mnt/with space/x", "nfs"),
        ("/data/x", "nfs"),  # mounted over
    ],
)
def test_the_longest_mount_point_decides(path: str, kind: str) -> None:
    assert kind_of(path, MOUNTS) == kind


def test_a_network_or_unknown_file_system_is_not_local(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    for kind, local in (
        ("ext4", True),
        ("nfs4", False),
        ("fuse.sshfs", False),
        ("cifs", False),
        ("new", False),
    ):
        table.write_text(f"x / {kind} rw 0 0\n")
        assert is_local(str(tmp_path), str(table)) is local
    assert not is_local(str(tmp_path), str(tmp_path / "absent"))
