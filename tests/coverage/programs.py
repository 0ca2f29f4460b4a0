"""Programs that are not Python."""

from __future__ import annotations

from tests.coverage.target import IN, OUT, Target, target

__all__ = ["TARGETS"]

_STDIO = r"""
    #include <stdio.h>

    int main(void) {
        char text[100];
        FILE *in = fopen("given.txt", "r"), *out = fopen("new.txt", "w");
        if (!in || !out || !fgets(text, sizeof text, in)) return 1;
        fputs(text, out);
        fclose(out);
        return rename("new.txt", "out.txt") != 0;
    }
    """
_OPEN = r"""
    #include <fcntl.h>
    #include <unistd.h>

    int main(void) {
        char text[100];
        int in = open("given.txt", O_RDONLY), out = openat(AT_FDCWD, "out.txt", O_WRONLY | O_CREAT, 0644);
        long size = read(in, text, sizeof text);
        return size <= 0 || write(out, text, size) != size;
    }
    """
_RAW = r"""
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    int main(void) {
        char text[100];
        long in = syscall(SYS_openat, AT_FDCWD, "given.txt", O_RDONLY);
        long out = syscall(SYS_openat, AT_FDCWD, "out.txt", O_WRONLY | O_CREAT, 0644);
        long size = read(in, text, sizeof text);
        return size <= 0 || write(out, text, size) != size;
    }
    """


def _program(name: str, source: str, flags: str = "") -> Target:
    """A C program that copies a file."""
    return target(
        name,
        """
        import subprocess

        subprocess.run(["./program"], check=True)
        """,
        IN,
        OUT,
        files={"program.c": source},
        build=(f"gcc {flags} -o program program.c",),
        needs=("gcc",),
    )


def _shell(name: str, commands: str, reads: tuple[str, ...] = IN) -> Target:
    """A shell script that makes out.txt."""
    return target(
        f"a shell script: {name}",
        """
        import subprocess

        subprocess.run(["sh", "script.sh"], check=True)
        """,
        ("script.sh", *reads),
        OUT,
        files={"script.sh": commands + "\n"},
    )


TARGETS = (
    _shell("cat and redirection", "cat given.txt >out.txt"),
    _shell("redirection alone", "read line <given.txt; echo $line >out.txt"),
    _shell("cp", "cp given.txt out.txt"),
    _shell("mv", "mv given.txt out.txt", reads=()),
    target(
        "os.system",
        """
        import os

        assert os.system("cat given.txt >out.txt") == 0
        """,
        IN,
        OUT,
    ),
    target(
        "os.posix_spawn",
        """
        import os

        child = os.posix_spawn("/bin/cp", ["cp", "given.txt", "out.txt"], os.environ)
        os.waitpid(child, 0)
        """,
        IN,
        OUT,
    ),
    target(
        "os.execv",
        """
        import os

        os.execv("/bin/cp", ["cp", "given.txt", "out.txt"])
        """,
        IN,
        OUT,
    ),
    target(
        "a program that is given open files",
        """
        import subprocess

        with open("given.txt") as file, open("out.txt", "w") as out:
            subprocess.run(["cat"], stdin=file, stdout=out, check=True)
        """,
        IN,
        OUT,
    ),
    _program("a C program: fopen and rename", _STDIO),
    _program("a C program: open", _OPEN),
    _program("a C program: raw system calls", _RAW),
    _program("a C program, linked statically", _OPEN, "-static"),
    target(
        "a C program after setsid, all descriptors closed",
        """
        import os

        child = os.fork()
        if not child:
            os.setsid()
            os.closerange(0, 4096)
            os.execv("./program", ["program"])
        assert os.waitpid(child, 0)[1] == 0
        """,
        IN,
        OUT,
        files={"program.c": _OPEN},
        build=("gcc -o program program.c",),
        needs=("gcc",),
    ),
    target(
        "a compiler",
        """
        import subprocess

        subprocess.run(["gcc", "-o", "program", "program.c"], check=True)
        """,
        ("program.c",),
        ("program",),
        files={"program.c": _OPEN},
        touches=("program",),
        needs=("gcc",),
    ),
)
