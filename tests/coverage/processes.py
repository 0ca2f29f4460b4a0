"""Python in threads and in other processes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.coverage.target import IN, OUT, Code, Target, target

__all__ = ["TARGETS"]

_COPY = 'open("out.txt", "w").write(open("given.txt").read())\n'
_NAMES = ("a.txt", "b.txt", "c.txt", "d.txt")
_POOL = """
    import multiprocessing

    def copy(name):
        with open(name) as file, open("out-" + name, "w") as out:
            out.write(file.read())

    if __name__ == "__main__":
        with multiprocessing.get_context("{how}").Pool(2) as pool:
            pool.map(copy, ["a.txt", "b.txt", "c.txt", "d.txt"])
    """


def _pool(how: str) -> Target:
    return target(
        f"multiprocessing, {how}",
        _POOL.format(how=how),
        _NAMES,
        tuple("out-" + name for name in _NAMES),
        files={name: name for name in _NAMES},
    )


def _python(name: str, words: str, environment: str = "None") -> Target:
    """A Python child that copies a file. words, environment: as they stand in the script."""
    return target(
        f"subprocess, {name}",
        f"""
        import os, subprocess, sys

        subprocess.run([sys.executable, {words}], env={environment}, check=True)
        """,
        IN,
        OUT,
        code=(Code("child.py", _COPY),),
        files={"child.py": _COPY},
    )


def _started(name: str, script: str, extra: Sequence[str] = ()) -> Target:
    """A Python child that is started in another way."""
    return target(
        name,
        script,
        (*IN, *extra),
        OUT,
        code=(Code("child.py", _COPY),),
        files={"child.py": _COPY, "run.sh": 'exec "$1" child.py\n'},
    )


TARGETS = (
    target(
        "threads",
        """
        import threading

        def copy():
            with open("given.txt") as file, open("out.txt", "w") as out:
                out.write(file.read())

        thread = threading.Thread(target=copy)
        thread.start()
        thread.join()
        """,
        IN,
        OUT,
    ),
    target(
        "asyncio.to_thread",
        """
        import asyncio
        from pathlib import Path

        text = asyncio.run(asyncio.to_thread(Path("given.txt").read_text))
        asyncio.run(asyncio.to_thread(Path("out.txt").write_text, text))
        """,
        IN,
        OUT,
    ),
    target(
        "concurrent.futures, threads",
        """
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path

        with ThreadPoolExecutor(2) as pool:
            text = pool.submit(Path("given.txt").read_text).result()
            pool.submit(Path("out.txt").write_text, text).result()
        """,
        IN,
        OUT,
    ),
    target(
        "concurrent.futures, processes",
        """
        from concurrent.futures import ProcessPoolExecutor
        from pathlib import Path

        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as pool:
                text = pool.submit(Path("given.txt").read_text).result()
                pool.submit(Path("out.txt").write_text, text).result()
        """,
        IN,
        OUT,
    ),
    _pool("fork"),
    _pool("spawn"),
    _pool("forkserver"),
    target(
        "multiprocessing, spawn after an edit",
        """
        import multiprocessing, part

        if __name__ == "__main__":
            with open("part.py", "w") as file:
                file.write("def work(): return 'two'")
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.apply(part.work) == "two"
        """,
        writes=("part.py",),
        code=(Code("part.py", "def work(): return 1"), Code("part.py", "def work(): return 'two'")),
        files={"part.py": "def work(): return 1"},
    ),
    target(
        "os.fork",
        """
        import os

        child = os.fork()
        if not child:
            with open("given.txt") as file, open("out.txt", "w") as out:
                out.write(file.read())
            os._exit(0)
        os.waitpid(child, 0)
        """,
        IN,
        OUT,
    ),
    target(
        "setsid, and all descriptors closed",
        """
        import os

        child = os.fork()
        if not child:
            os.setsid()
            os.closerange(0, 4096)
            source = os.open("given.txt", os.O_RDONLY)
            out = os.open("out.txt", os.O_WRONLY | os.O_CREAT)
            os.write(out, os.read(source, 100))
            os._exit(0)
        os.waitpid(child, 0)
        """,
        IN,
        OUT,
    ),
    target(
        "SIGKILL right after a read",
        """
        import os, signal

        with open("given.txt") as file:
            file.read()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        IN,
        status=-9,
    ),
    _python("Python", '"child.py"'),
    _python("Python -I", '"-I", "child.py"'),
    _python("Python -S", '"-S", "child.py"'),
    _python("Python -E", '"-E", "child.py"'),
    _python("Python -X utf8 -I", '"-X", "utf8", "-I", "child.py"'),
    _python("Python with no environment", '"child.py"', "{}"),
    _python(
        "Python with PYTHONPATH alone",
        '"child.py"',
        '{"PYTHONPATH": os.environ["PYTHONPATH"]}',
    ),
    _python(
        "Python with a PYTHONPATH of its own",
        '"child.py"',
        '{**os.environ, "PYTHONPATH": os.getcwd()}',
    ),
    _started(
        "PYTHONPATH changed, then Python",
        """
        import os, subprocess, sys

        os.environ["PYTHONPATH"] = os.getcwd()
        subprocess.run([sys.executable, "child.py"], check=True)
        """,
    ),
    _started(
        "os.posix_spawn of Python",
        """
        import os, sys

        child = os.posix_spawn(sys.executable, [sys.executable, "child.py"], os.environ)
        os.waitpid(child, 0)
        """,
    ),
    _started(
        "os.execv of Python",
        """
        import os, sys

        os.execv(sys.executable, [sys.executable, "child.py"])
        """,
    ),
    _started(
        "os.system of Python",
        """
        import os, sys

        assert os.system(f"'{sys.executable}' child.py") == 0
        """,
    ),
    _started(
        "a shell script that starts Python",
        """
        import subprocess, sys

        subprocess.run(["sh", "run.sh", sys.executable], check=True)
        """,
        extra=("run.sh",),
    ),
)
