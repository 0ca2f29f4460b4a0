"""What rides inside the user's Python processes: notes which code they compile and which files they open.

Everything here obeys three rules. Nothing may reach the user's program: no exception, no output, no changed object
beyond the wrapped library functions. Nothing heavy is imported. And each record is written at once, by one system
call, so that a killed process loses none. The records are described in docs/trace.md.
"""

import os
import posix
import sys
import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_HERE = os.path.dirname(os.path.abspath(__file__))
_HIGH_FD = 700  # programs that close or count descriptors begin with the low ones
_ALONE = 2000  # files that are recorded one by one; of more, only their folders, and marks
_FOLDERS = 20000
_MARK_BYTES = 8 << 20
_KEPT_BYTES = 4 << 20  # code that is larger was not written by a person
_OURS = "/.mllaunch/trace"  # in a container, also where a process has lost its environment

# What a run's environment consists of is recorded as a whole, not file by file.
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib", "/usr/share/", "/usr/local/lib", "/lib", "/run/")
# Code, settings and weights: these may be written anew while the program runs, and are recorded again when they were.
_CHANGING = (
    *(".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".txt"),
    *(".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".h5", ".hdf5", ".keras", ".npz", ".onnx", ".distcp"),
)

_folder = ""
_skipped = ()
_code = ""
_fd = -1
_identity = (0, 0)
_pid = 0
_torn = False
_alone = 0
_known = set()  # names, as given, that need no second look
_versions = set()  # (path, mtime, size)
_folders = set()
_code_seen = {}  # path -> blob that was taken from it last
_written = {}  # path -> when that was said last
_silent = set()  # programs that do not tell what they do
_marks = None


def install():
    """Begin to record, once in each process; does nothing outside of a run, nor in a process of our own."""
    global _folder, _skipped, _code, _pid
    environ = os.environ
    folder = environ.get("MLLAUNCH_TRACE") or (_OURS if os.path.isdir(_OURS) else "")
    if _folder or not folder or "MLLAUNCH_AGENT" in environ:
        return
    _folder = folder
    _code = environ.get("MLLAUNCH_CODE", "").rstrip("/") + "/"
    _skipped = _prefixes(folder)
    _pid = os.getpid()
    _begin()
    os.register_at_fork(after_in_child=_forked)
    sys.meta_path.insert(0, _Finder)
    sys.addaudithook(_hook)


def _prefixes(folder):
    """The beginnings of paths that are not recorded; none of them may hide the user's own code."""
    library = os.path.dirname(os.__file__) + "/"
    found = [*_SYSTEM, library, folder + "/", _HERE + "/"]
    found += [path + "/" for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix}:
        found += [prefix + "/lib/", prefix + "/lib64/"]
    return tuple(path for path in found if not _code.startswith(path))


# --- writing ------------------------------------------------------------------------------------------------


def _begin():
    """Open this process's file and say who it is."""
    argv = getattr(sys, "orig_argv", None) or [sys.executable, *getattr(sys, "argv", ())]
    version = "%d.%d.%d" % sys.version_info[:3]
    rank = os.environ.get("RANK", "")
    who = (b"%d" % _pid, b"%d" % os.getppid(), _text(rank), _text(sys.executable or ""), _text(version))
    record(b"P", b"python", *who, _text(os.getcwd()), *map(_text, argv[:64]))


def _open():
    """The file of this process, at a descriptor that nothing else is likely to want."""
    global _fd, _identity
    name = "%s/%d-%d-py" % (_folder, _pid, time.clock_gettime_ns(_BOOTTIME))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    low = posix.open(name, flags, 0o600)
    try:
        import fcntl

        _fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
        posix.close(low)
    except (ImportError, OSError):  # fewer descriptors are allowed
        _fd = low
    info = posix.fstat(_fd)
    _identity = (info.st_dev, info.st_ino)


def record(kind, *fields):
    """Append one record. fields: bytes without TAB and newline (see _text). Loses it where the disk is full."""
    global _torn, _fd, _pid
    line = b"\t".join((kind, b"%d" % (time.clock_gettime(_BOOTTIME) * 1000), *fields)) + b"\n"
    try:
        if _pid != os.getpid():  # a fork that Python was not told of
            _forked()
        if not _is_ours():
            _open()
        if _torn:
            line = b"\n" + line
        _torn = posix.write(_fd, line) != len(line)
    except OSError:
        _torn = True


def _is_ours():
    """Whether the descriptor is still our file: programs close what they do not know, and the number is given again."""
    if _fd < 0:
        return False
    try:
        info = posix.fstat(_fd)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == _identity


def _forked():
    """A child has a file of its own, and has opened nothing yet."""
    global _fd, _pid, _torn, _alone
    if _fd >= 0 and _is_ours():
        posix.close(_fd)
    _fd, _pid, _torn, _alone = -1, os.getpid(), False, 0
    for seen in (_known, _versions, _folders, _code_seen, _written, _silent):
        seen.clear()
    _begin()
    record(b"I", b"%d" % os.getppid())


def _text(text):
    """A text as a field: bytes with TAB, newline and backslash escaped."""
    raw = text if isinstance(text, bytes) else os.fsencode(text)
    if b"\\" in raw or b"\t" in raw or b"\n" in raw:
        raw = raw.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")
    return raw


def _path(path):
    """A path as str, absolute; None if it is none, or not to be recorded."""
    if type(path) is not str:
        if isinstance(path, int):
            return None
        path = os.fsdecode(os.fspath(path))
    if path[:1] != "/":
        path = os.getcwd() + "/" + path
    return None if path.startswith(_skipped) or "/site-packages/" in path else path


# --- events -------------------------------------------------------------------------------------------------


def _hook(event, args):
    handler = _HANDLERS.get(event)
    if handler is None:
        return
    try:
        handler(args)
    except Exception as error:
        if not _is_own(error):
            raise  # a signal handler of the user's ran meanwhile, and it was that which raised


def _is_own(error):
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_code.co_filename
    return name.startswith(_HERE) or name.startswith("<frozen") or name == os.__file__


def _opened(args):
    path, _, flags = args
    if flags & 3 or flags & os.O_CREAT:
        path = _path(path)
        if path is not None:
            wrote(path)
    elif path not in _known:
        _see(path)


def _see(given):
    """A file that is opened for reading under a name that is not known yet."""
    global _alone
    path = _path(given)
    if path is None:
        _know(given)
        return
    if path.endswith(_CHANGING) and len(_versions) < 10 * _ALONE:
        info = posix.stat(path)
        version = (path, info.st_mtime_ns, info.st_size)
        if version not in _versions:
            _versions.add(version)
            record(b"R", _text(path))
    elif _alone < _ALONE:
        if path not in _known:
            _alone += 1
            _known.add(path)
            record(b"R", _text(path))
        _know(given)
    else:
        _mark(path)


def _know(given):
    if type(given) is str and len(_known) < 4 * _ALONE:
        _known.add(given)


def _moved(args):
    """After a change of the working folder, relative names are other files."""
    _known.difference_update([name for name in _known if name[:1] != "/"])


def _mark(path):
    """One of very many: its folder is named once, and the file leaves a mark."""
    global _marks
    folder = path.rpartition("/")[0]
    if folder not in _folders and len(_folders) < _FOLDERS:
        _folders.add(folder)
        record(b"F", _text(folder))
    if _marks is None:
        _marks = _map_marks()
    if _marks:
        bit = _crc32(os.fsencode(path)) & (_MARK_BYTES * 8 - 1)
        _marks[bit >> 3] |= 1 << (bit & 7)


def _map_marks():
    """The map that all processes of the tasks share; () where it cannot be made."""
    global _crc32
    try:
        import mmap
        from binascii import crc32

        _crc32 = crc32
        fd = posix.open(_folder + "/reads", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _MARK_BYTES)  # a full disk must not become SIGBUS
            return mmap.mmap(fd, _MARK_BYTES)
        finally:
            posix.close(fd)
    except (ImportError, OSError) as error:
        record(b"E", _text("marks of files that are read in great number: %s" % error))
        return ()


def wrote(path):
    """A file was opened for writing. Said again once a second at most: each time it may hold another content."""
    now = time.monotonic()
    if now - _written.get(path, -1.0) >= 1.0:
        if len(_written) > 10 * _ALONE:
            _written.clear()
        _written[path] = now
        record(b"W", _text(path))


def _renamed(args):
    source, target = _path(args[0]), _path(args[1])
    if source is not None or target is not None:
        record(b"M", _text(source or args[0]), _text(target or args[1]))


def _removed(args):
    path = _path(args[0])
    if path is not None and path in _written:
        record(b"D", _text(path))


def _compiled(args):
    source, name = args
    if (
        source is None
        or name is None
        or type(name) is not str
        or name[:1] == "<"
        or name.startswith(_skipped)
    ):
        return
    path = _path(name)
    if path is None:
        return
    if type(source) is str:
        found = _content(path)
        if found is None:
            return  # generated code, whatever it calls itself
        # As text it has lost its line ends and its encoding; the file has them, if it is the same.
        if found.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n") == source:
            source = found
    if not isinstance(source, (bytes, str)):
        source = bytes(source)
    _took("source", path, source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source)


def _executed(args):
    code = args[0]
    name = code.co_filename
    if name in _code_seen or name[:1] == "<" or code.co_name != "<module>" or name.startswith(_skipped):
        return
    path = _path(name)
    if path is not None and path not in _code_seen:
        _took("bytecode", path, _content(path))


def _ran(args):
    """The main script, which Python reads without telling its source."""
    path = _path(args[0])
    if path is not None:
        _took("run", path, _content(path))
        _code_seen[args[0]] = ""


def _took(how, path, source):
    """Code was taken from a file. source: its bytes, or None where they could not be read."""
    blob = _blob(source) if source is not None else "-"
    if _code_seen.get(path) != blob:
        _code_seen[path] = blob
        if source is not None:
            _keep(path, blob, source)
        record(b"C", how.encode(), blob.encode(), _text(path))


def _keep(path, blob, source):
    """Keep what was executed where it may not be what the run began with: the file may be another again in a moment."""
    try:
        is_old = posix.stat(path).st_ctime_ns < posix.stat(_folder + "/began").st_mtime_ns
        if (is_old and path.startswith(_code)) or len(source) > _KEPT_BYTES:
            return
        fd = posix.open(
            "%s/code-%s" % (_folder, blob), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
    except OSError:
        return
    try:
        posix.write(fd, source)
    finally:
        posix.close(fd)


def _blob(content):
    """What git calls a file with this content."""
    try:
        from _sha1 import sha1
    except ImportError:
        from hashlib import sha1
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _content(path):
    try:
        fd = posix.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        blocks = []
        while True:
            block = posix.read(fd, 1 << 20)
            if not block:
                return b"".join(blocks)
            blocks.append(block)
    except OSError:
        return None
    finally:
        posix.close(fd)


def _imported(args):
    """Only the loading of a shared library tells its file."""
    if args[1] is not None:
        _linked((args[1],))


def _linked(args):
    name = args[0]
    if name is None or isinstance(name, int) or "/" not in os.fsdecode(name):
        return
    path = _path(name)
    if path is not None and path not in _code_seen:
        _code_seen[path] = "-"
        record(b"C", b"native", b"-", _text(path))


def _started(args):
    program, argv, _, environment = args
    words = [os.fsdecode(word) for word in ([argv] if isinstance(argv, (str, bytes)) else list(argv)[:64])]
    _child(os.fsdecode(program) if program is not None else words[0], words, environment)


def _replaced(args):
    program, argv, environment = args
    _child(os.fsdecode(program), [os.fsdecode(word) for word in list(argv)[:64]], environment)


def _shell(args):
    _child("/bin/sh", [], None)


def _child(program, words, environment):
    """Say so if what is started will not tell what it does."""
    name = program.rpartition("/")[2]
    if not name.startswith(("python", "pypy")):
        if name not in _silent and len(_silent) < _ALONE:
            _silent.add(name)
            record(b"N", _text(program))
        return
    why = None
    for word in words[1:]:
        if word[:1] != "-" or word[:2] == "--" or word[1:2] in ("c", "m", "W", "X"):
            break
        if set(word) & set("IES"):
            why = b"isolated"
    if environment is not None and why is None:
        paths = environment.get("PYTHONPATH", environment.get(b"PYTHONPATH", ""))
        if os.path.dirname(_HERE) not in os.fsdecode(paths).split(os.pathsep):
            why = b"environment"
    if why is not None:
        record(b"X", why, *map(_text, words))


def _database(args):
    if isinstance(args[0], (str, bytes)) and args[0] not in (":memory:", ""):
        path = _path(args[0])
        if path is not None:
            _see(path)
            wrote(path)


_HANDLERS = {
    "open": _opened,
    "os.chdir": _moved,
    "os.rename": _renamed,
    "os.link": _renamed,
    "os.remove": _removed,
    "compile": _compiled,
    "exec": _executed,
    "cpython.run_file": _ran,
    "import": _imported,
    "ctypes.dlopen": _linked,
    "subprocess.Popen": _started,
    "os.posix_spawn": _replaced,
    "os.exec": _replaced,
    "os.system": _shell,
    "sqlite3.connect": _database,
}


class _Finder:
    """Lets a library whose functions are wrapped be found as ever, and wraps them once it has run."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _WRAPPED:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if finder is not _Finder and find is not None else None
            if spec is not None:
                _wrap_when_run(spec)
                return spec
        return None


# The modules that define what wrappers.py wraps.
_WRAPPED = frozenset(
    (
        "torch",
        "torch.serialization",
        "torch.jit._serialization",
        "torch.jit._script",
        "torch.distributed.checkpoint.state_dict_saver",
        "torch.distributed.checkpoint.state_dict_loader",
        "safetensors",
        "h5py._hl.files",
        "numpy.lib.npyio",
        "numpy.lib._npyio_impl",
        "joblib.numpy_pickle",
        "keras.src.saving.saving_api",
    )
)


def _wrap_when_run(spec):
    loader = spec.loader
    run = getattr(loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module):
        run(module)
        try:
            from mllaunch_hook import wrappers

            wrappers.wrap(module)
        except Exception as error:
            record(b"E", _text("%s: its functions are not followed: %r" % (spec.name, error)))

    try:
        loader.exec_module = exec_module
    except AttributeError:
        record(b"E", _text("%s: its functions are not followed: its loader cannot be changed" % spec.name))
