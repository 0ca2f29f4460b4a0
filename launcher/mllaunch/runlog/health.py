"""Whether the run log's database is sound."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from mllaunch.runlog.schema import VERSION

_SHOWN = 5


def check(folder: str) -> tuple[int | None, int, tuple[str, ...]]:
    """(the schema version of the database in ``folder``, ours, what is damaged); None where nothing was ever stored.

    Only reads. ``PRAGMA quick_check``: https://www.sqlite.org/pragma.html#pragma_quick_check
    """
    path = os.path.join(os.path.abspath(folder), "runlog.sqlite3")
    if not os.path.exists(path):
        return None, VERSION, ()
    escaped = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    version = None
    try:
        with closing(sqlite3.connect(f"file://{escaped}?mode=ro", uri=True, timeout=10.0)) as database:
            version = int(database.execute("PRAGMA user_version").fetchone()[0])
            found = [str(row[0]) for row in database.execute(f"PRAGMA quick_check({_SHOWN})")]
    except sqlite3.Error as error:
        return version or 0, VERSION, (str(error),)
    return version, VERSION, () if found == ["ok"] else tuple(found)
