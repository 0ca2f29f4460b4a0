"""Ways in which code comes to be executed."""

from __future__ import annotations

from tests.coverage.target import IN, OUT, Code, target

__all__ = ["TARGETS"]

# What the executed code does: write a file, so that it shows that it ran.
_PART = 'open("out.txt", "w").write(open("given.txt").read())\n'
_EXTENSION = """
    #define PY_SSIZE_T_CLEAN
    #include <Python.h>

    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "part", NULL, -1, NULL};
    PyMODINIT_FUNC PyInit_part(void) { return PyModule_Create(&module); }
    """
_LIBRARY = "int seven(void) { return 7; }\n"
_GCC_EXTENSION = (
    'gcc -shared -fPIC -o part.so part.c -I"$("$PYTHON" -c'
    ' \'import sysconfig; print(sysconfig.get_paths()["include"])\')"'
)

TARGETS = (
    target(
        "import",
        "import package.part",
        IN,
        OUT,
        code=(Code("package/__init__.py", "a = 1\n"), Code("package/part.py", _PART)),
        files={"package/__init__.py": "a = 1\n", "package/part.py": _PART},
    ),
    target(
        "import from a namespace package",
        "import space.part",
        IN,
        OUT,
        code=(Code("space/part.py", _PART),),
        files={"space/part.py": _PART},
    ),
    target(
        "import of a file with CRLF and another encoding",
        "import part",
        code=(Code("part.py", b"# coding: latin-1\r\nname = '\xe4'\r\n"),),
        files={"part.py": b"# coding: latin-1\r\nname = '\xe4'\r\n"},
    ),
    target(
        "importlib.reload after an edit",
        """
        import importlib, os, part

        with open("part.py", "w") as file:
            file.write("version = 'two'")
        os.utime("part.py", (1, 1))
        importlib.reload(part)
        """,
        writes=("part.py",),
        code=(Code("part.py", "version = 1"), Code("part.py", "version = 'two'")),
        files={"part.py": "version = 1"},
    ),
    target(
        "importlib.util.spec_from_file_location",
        """
        from importlib import util

        spec = util.spec_from_file_location("any", "settings.conf.py")
        spec.loader.exec_module(util.module_from_spec(spec))
        """,
        IN,
        OUT,
        code=(Code("settings.conf.py", _PART),),
        files={"settings.conf.py": _PART},
    ),
    target(
        "python -m module",
        """
        import subprocess, sys

        subprocess.run([sys.executable, "-m", "package.part"], check=True)
        """,
        IN,
        OUT,
        code=(Code("package/__init__.py", "a = 1\n"), Code("package/part.py", _PART)),
        files={"package/__init__.py": "a = 1\n", "package/part.py": _PART},
    ),
    target(
        "runpy.run_path",
        """
        import runpy

        runpy.run_path("part.py")
        """,
        IN,
        OUT,
        code=(Code("part.py", _PART),),
        files={"part.py": _PART},
    ),
    target(
        "exec of a compiled text",
        """
        path = "part.py"
        exec(compile(open(path).read(), path, "exec"))
        """,
        IN,
        OUT,
        code=(Code("part.py", _PART),),
        files={"part.py": _PART},
    ),
    target(
        "exec of a text without a name",
        """
        exec(open("part.py").read())
        """,
        (*IN, "part.py"),
        OUT,
        files={"part.py": _PART},
    ),
    target(
        "exec of a syntax tree",
        """
        import ast

        tree = ast.parse(open("part.py").read(), "part.py")
        exec(compile(tree, "part.py", "exec"))
        """,
        IN,
        OUT,
        code=(Code("part.py", _PART),),
        files={"part.py": _PART},
    ),
    target(
        "import from a zip",
        """
        import sys

        sys.path.insert(0, "library.zip")
        import part
        """,
        (*IN, "library.zip"),
        OUT,
        code=(Code("library.zip/part.py", _PART),),
        files={"part.py": _PART},
        build=('"$PYTHON" -m zipfile -c library.zip part.py && rm part.py',),
    ),
    target(
        "python program.zip",
        """
        import subprocess, sys

        subprocess.run([sys.executable, "program.zip"], check=True)
        """,
        (*IN, "program.zip"),
        OUT,
        code=(Code("program.zip/__main__.py", _PART),),
        files={"__main__.py": _PART},
        build=('"$PYTHON" -m zipfile -c program.zip __main__.py && rm __main__.py',),
    ),
    target(
        "a cached .pyc",
        "import part",
        IN,
        OUT,
        code=(Code("part.py", _PART),),
        files={"part.py": _PART},
        build=('"$PYTHON" -m compileall -q part.py',),
    ),
    target(
        "a .pyc without its source",
        "import part",
        (*IN, "part.pyc"),
        OUT,
        code=(Code("part.py", None),),
        files={"part.py": _PART},
        build=('"$PYTHON" -m compileall -q -b part.py && rm part.py',),
    ),
    target(
        "a C extension",
        "import part",
        code=(Code("part.so", None),),
        files={"part.c": _EXTENSION},
        build=(_GCC_EXTENSION,),
        needs=("gcc",),
    ),
    target(
        "ctypes.CDLL",
        """
        import ctypes

        assert ctypes.CDLL("./part.so").seven() == 7
        """,
        code=(Code("part.so", None),),
        files={"part.c": _LIBRARY},
        build=("gcc -shared -fPIC -o part.so part.c",),
        needs=("gcc",),
    ),
)
