"""Python's own ways to a file."""

from __future__ import annotations

from tests.coverage.target import IN, OUT, target

__all__ = ["TARGETS"]

_BASE = (
    '"$PYTHON" -c "import sqlite3; base = sqlite3.connect(\'base.db\');'
    " base.execute('create table numbers (number)'); base.commit()\""
)

TARGETS = (
    target(
        "open, text",
        """
        with open("given.txt") as file, open("out.txt", "w") as out:
            out.write(file.read())
        """,
        IN,
        OUT,
    ),
    target(
        "open, binary",
        """
        with open(b"given.txt", "rb") as file, open(b"out.txt", "wb") as out:
            out.write(file.read())
        """,
        IN,
        OUT,
    ),
    target(
        "open, append",
        """
        with open("log.txt", "a") as log:
            log.write("more")
        """,
        writes=("log.txt",),
        files={"log.txt": "before"},
    ),
    target(
        "open, r+",
        """
        with open("both.txt", "r+") as file:
            text = file.read()
            file.seek(0)
            file.write(text.upper())
        """,
        ("both.txt",),
        ("both.txt",),
        files={"both.txt": "before"},
    ),
    target(
        "open, x",
        """
        with open("out.txt", "x") as out:
            out.write("new")
        """,
        writes=OUT,
    ),
    target(
        "pathlib",
        """
        from pathlib import Path

        Path("out.txt").write_bytes(Path("given.txt").read_bytes())
        """,
        IN,
        OUT,
    ),
    target(
        "os.open",
        """
        import os

        source = os.open("given.txt", os.O_RDONLY)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT)
        os.write(out, os.read(source, 100))
        """,
        IN,
        OUT,
    ),
    target(
        "os.open, dir_fd",
        """
        import os

        folder = os.open("folder", os.O_RDONLY)
        source = os.open("inner.txt", os.O_RDONLY, dir_fd=folder)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
        os.write(out, os.read(source, 100))
        """,
        ("folder/inner.txt",),
        ("folder/out.txt",),
        files={"folder/inner.txt": "inside"},
        touches=("folder",),
    ),
    target(
        "os.truncate",
        """
        import os

        os.truncate("both.txt", 3)
        """,
        writes=("both.txt",),
        files={"both.txt": "before"},
    ),
    target(
        "io.FileIO",
        """
        import io

        io.FileIO("out.txt", "w").write(io.FileIO("given.txt").read())
        """,
        IN,
        OUT,
    ),
    target(
        "mmap, read",
        """
        import mmap

        with open("given.txt", "rb") as file:
            bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        """,
        IN,
    ),
    target(
        "mmap, write",
        """
        import mmap

        with open("out.txt", "wb+") as file:
            file.truncate(4096)
            mmap.mmap(file.fileno(), 0)[:5] = b"hello"
        """,
        writes=OUT,
    ),
    target(
        "os.rename",
        """
        import os

        with open("new.txt", "w") as file:
            file.write("new")
        os.rename("new.txt", "out.txt")
        os.rename("given.txt", "moved.txt")
        """,
        writes=("out.txt", "moved.txt"),
    ),
    target(
        "os.replace, with a temporary file",
        """
        import os, tempfile

        with tempfile.NamedTemporaryFile(dir=".", delete=False) as file:
            file.write(b"new")
        os.replace(file.name, "out.txt")
        """,
        writes=OUT,
    ),
    target(
        "os.rename, a folder",
        """
        import os

        os.mkdir("new")
        with open("new/file.txt", "w") as file:
            file.write("new")
        os.rename("new", "out")
        """,
        writes=("out/file.txt",),
    ),
    target(
        "os.rename, with dir_fd",
        """
        import os

        folder = os.open("folder", os.O_RDONLY)
        with open("folder/new.txt", "w") as file:
            file.write("new")
        os.rename("new.txt", "out.txt", src_dir_fd=folder, dst_dir_fd=folder)
        """,
        writes=("folder/out.txt",),
        files={"folder/inner.txt": "inside"},
        touches=("folder",),
    ),
    target(
        "os.link",
        """
        import os

        with open("first.txt", "w") as file:
            file.write("new")
        os.link("first.txt", "second.txt")
        """,
        writes=("first.txt", "second.txt"),
    ),
    target(
        "shutil.copy",
        """
        import shutil

        shutil.copy("given.txt", "out.txt")
        """,
        IN,
        OUT,
    ),
    target(
        "shutil.copytree",
        """
        import shutil

        shutil.copytree("tree", "copy")
        """,
        ("tree/a.txt", "tree/b/c.txt"),
        ("copy/a.txt", "copy/b/c.txt"),
        files={"tree/a.txt": "a", "tree/b/c.txt": "c"},
    ),
    target(
        "shutil.move",
        """
        import shutil

        shutil.move("given.txt", "out.txt")
        """,
        writes=OUT,
    ),
    target(
        "tempfile.TemporaryFile",
        """
        import tempfile

        with tempfile.TemporaryFile(dir=".") as file, open("given.txt", "rb") as given:
            file.write(given.read())
        """,
        IN,
    ),
    target(
        "sqlite3",
        """
        import sqlite3

        base = sqlite3.connect("base.db")
        base.execute("create table numbers (number)")
        base.execute("insert into numbers values (1)")
        base.commit()
        """,
        writes=("base.db",),
        touches=("base.db",),
    ),
    target(
        "sqlite3, read only",
        """
        import sqlite3

        sqlite3.connect("file:base.db?mode=ro", uri=True).execute("select * from numbers").fetchall()
        """,
        ("base.db",),
        build=(_BASE,),
    ),
    target(
        "sqlite3, attached",
        """
        import sqlite3

        base = sqlite3.connect(":memory:")
        base.execute("attach 'base.db' as other")
        base.execute("create table other.numbers (number)")
        base.commit()
        """,
        writes=("base.db",),
        touches=("base.db",),
    ),
    target(
        "zipfile",
        """
        import zipfile

        with zipfile.ZipFile("out.zip", "w") as archive:
            archive.write("given.txt")
        with zipfile.ZipFile("out.zip") as archive:
            archive.extractall("unpacked")
        """,
        ("given.txt", "out.zip"),
        ("out.zip", "unpacked/given.txt"),
    ),
    target(
        "tarfile",
        """
        import tarfile

        with tarfile.open("out.tar", "w") as archive:
            archive.add("given.txt")
        with tarfile.open("out.tar") as archive:
            archive.extractall("unpacked")
        """,
        ("given.txt", "out.tar"),
        ("out.tar", "unpacked/given.txt"),
    ),
    target(
        "gzip",
        """
        import gzip

        with open("given.txt", "rb") as file, gzip.open("out.gz", "w") as out:
            out.write(file.read())
        with gzip.open("out.gz") as file:
            file.read()
        """,
        ("given.txt", "out.gz"),
        ("out.gz",),
    ),
    target(
        "pickle",
        """
        import pickle

        with open("out.pkl", "wb") as out:
            pickle.dump([1, 2], out)
        with open("out.pkl", "rb") as file:
            pickle.load(file)
        """,
        ("out.pkl",),
        ("out.pkl",),
    ),
    target(
        "json",
        """
        import json

        with open("settings.json") as file, open("out.json", "w") as out:
            json.dump(json.load(file), out)
        """,
        ("settings.json",),
        ("out.json",),
        files={"settings.json": "{}"},
    ),
    target(
        "csv",
        """
        import csv

        with open("table.csv", newline="") as file, open("out.csv", "w", newline="") as out:
            csv.writer(out).writerows(csv.reader(file))
        """,
        ("table.csv",),
        ("out.csv",),
        files={"table.csv": "a,b\n"},
    ),
    target(
        "fileinput",
        """
        import fileinput

        list(fileinput.input(["given.txt"]))
        for line in fileinput.input(["both.txt"], inplace=True):
            print(line.upper())
        """,
        IN,
        ("both.txt",),
        files={"both.txt": "before\n"},
        touches=("both.txt",),
    ),
    target(
        "logging",
        """
        import logging

        logging.basicConfig(filename="out.log")
        logging.error("something")
        """,
        writes=("out.log",),
    ),
    target(
        "a link",
        """
        import os

        os.symlink("given.txt", "link.txt")
        with open("link.txt") as file:
            file.read()
        """,
        IN,
        touches=("link.txt",),
    ),
    target(
        "'..' behind a link to a folder",
        """
        import os

        os.symlink("far/folder", "link")
        with open("link/../inner.txt") as file:
            file.read()
        """,
        ("far/inner.txt",),
        files={"far/folder/x": "", "far/inner.txt": "this one", "inner.txt": "not this one"},
    ),
    target(
        "names with a newline, TAB, backslash and invalid UTF-8",
        r"""
        import os

        with open("new\nline\ttab\\.txt") as file, open(b"in\xffvalid.txt", "wb") as out:
            out.write(file.read().encode())
        """,
        ("new\nline\ttab\\.txt",),
        ("in\udcffvalid.txt",),
        files={"new\nline\ttab\\.txt": "odd"},
    ),
    target(
        "os.chdir, and relative paths",
        """
        import os

        for folder in ("a", "b"):  # the same names are other files there
            os.chdir(folder)
            with open("same.txt") as file, open("out.txt", "w") as out:
                out.write(file.read())
            os.chdir("..")
        """,
        ("a/same.txt", "b/same.txt"),
        ("a/out.txt", "b/out.txt"),
        files={"a/same.txt": "a", "b/same.txt": "b"},
    ),
    target(
        "a folder of 5,000 files",
        """
        import os

        for name in os.listdir("many"):
            with open("many/" + name) as file:
                file.read()
        """,
        folders=("many",),
        build=("mkdir many && cd many && for n in $(seq 5000); do echo $n >$n; done",),
    ),
    target(
        "numpy.save and load",
        """
        import numpy

        numpy.save("out", numpy.zeros(4))
        numpy.load("out.npy", mmap_mode="r").sum()
        """,
        ("out.npy",),
        ("out.npy",),
        needs=("numpy",),
    ),
    target(
        "numpy.savez and load",
        """
        import numpy

        numpy.savez("out.npz", a=numpy.zeros(4))
        numpy.load("out.npz")["a"]
        """,
        ("out.npz",),
        ("out.npz",),
        needs=("numpy",),
    ),
    target(
        "numpy.memmap",
        """
        import numpy

        numpy.memmap("out.bin", "f4", "w+", shape=4)[:] = 1
        numpy.memmap("out.bin", "f4", "r").sum()
        """,
        ("out.bin",),
        ("out.bin",),
        needs=("numpy",),
    ),
    target(
        "numpy.memmap, r+",
        """
        import numpy

        numpy.memmap("both.bin", "u1", "r+")[:] += 1
        """,
        ("both.bin",),
        ("both.bin",),
        files={"both.bin": b"\0" * 8},
        needs=("numpy",),
    ),
    target(
        "numpy.tofile and fromfile",
        """
        import numpy

        numpy.zeros(4).tofile("out.bin")
        numpy.fromfile("out.bin")
        """,
        ("out.bin",),
        ("out.bin",),
        needs=("numpy",),
    ),
    target(
        "numpy.savetxt and genfromtxt",
        """
        import numpy

        numpy.savetxt("out.csv", numpy.zeros((2, 2)), delimiter=",")
        numpy.genfromtxt("out.csv", delimiter=",")
        """,
        ("out.csv",),
        ("out.csv",),
        needs=("numpy",),
    ),
)
