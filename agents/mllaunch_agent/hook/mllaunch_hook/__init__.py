"""What rides inside the user's Python processes: notes which code they compile and which files they open.

Everything here obeys three rules. Nothing may reach the user's program: no exception, no output, no changed object
beyond the wrapped library functions. Nothing heavy is imported, and nothing is called that the user's code may have
put in the place of something else. And each record is written at once, by one system call, so that a killed process
loses none. The records are described in docs/trace.md. It is one file because every process pays for its import.
"""

import os
import posix
import sys
import time


class _System:
    """The system's own functions. Held by a class, where no tool that puts others into modules looks for them."""

    clock = time.clock_gettime
    close = posix.close
    cwd = posix.getcwd
    fstat = posix.fstat
    open = posix.open
    parent = posix.getppid
    pid = posix.getpid
    read = posix.read
    rename = posix.rename
    stat = posix.stat
    write = posix.write
    environ = os.environ._data  # bytes by bytes, as it is now


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_ENCODING = sys.getfilesystemencoding()
_HERE = __file__.rpartition("/")[0]
_PARENT = _HERE.rpartition("/")[0]  # what is on PYTHONPATH
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EMPTYING = os.O_TRUNC | os.O_EXCL
_NO_FILE = os.O_DIRECTORY | os.O_PATH
_HIGH_FD = 700  # programs that close or count descriptors begin with the low ones
_ALONE = 2000  # files that are recorded one by one; of more, only their folders, and marks
_FOLDERS = 20000
_MARK_BYTES = 8 << 20
_LAST_MARK = _MARK_BYTES * 8 - 1
_KEPT_BYTES = 4 << 20  # code that is larger was not written by a person
_OURS = "/.mllaunch/trace"  # in a container, also where a process has lost its environment

# What a run's environment consists of is recorded as a whole, not file by file.
_SYSTEM = (
    *("/proc/", "/sys/", "/dev/", "/etc/", "/run/", "/usr/lib", "/usr/share/", "/usr/local/lib"),
    *("/lib/", "/lib32/", "/lib64/", "/libx32/"),
)
# Code, settings and weights: these may be written anew while the program runs, and are recorded again when they were.
_CHANGING = (
    *(".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".txt"),
    *(".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".h5", ".hdf5", ".keras", ".npz", ".onnx", ".distcp"),
)

_folder = ""
_skipped = ()
_code = ""
_who = ()  # what the first record says of the program
_file = ""  # of this process
_fd = -1
_identity = (0, 0)
_pid = 0
_fork_ms = None  # when the fork under way began
_torn = False
_alone = 0
_known = set()  # names, as given, that need no second look
_near = set()  # likewise, those that count from the working folder
_versions = set()  # (path, mtime, size)
_folders = set()
_code_seen = {}  # path -> blob that was taken from it last
_written = {}  # path -> when that was said last
_silent = set()  # programs that do not tell what they do
_marks = None
_crc32 = None


def install():
    """Begin to record, once in each process; does nothing outside of a run, nor in a process of our own."""
    global _folder, _skipped, _code, _pid, _who
    environ = os.environ
    folder = environ.get("MLLAUNCH_TRACE") or (_OURS if os.path.isdir(_OURS) else "")
    if _folder or not folder or "MLLAUNCH_AGENT" in environ:
        return
    _folder = folder
    _code = environ.get("MLLAUNCH_CODE", "").rstrip("/") + "/"
    _skipped = _prefixes(folder)
    _pid = _System.pid()
    argv = getattr(sys, "orig_argv", None) or [sys.executable, *getattr(sys, "argv", ())]
    _who = (sys.executable or "", "%d.%d.%d" % sys.version_info[:3], *argv[:64])
    _begin()
    os.register_at_fork(before=_forking, after_in_child=_forked)
    sys.meta_path.insert(0, _Finder)
    sys.addaudithook(_listener(_HANDLERS, _is_own))


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
    """Begin this process's file, and say who it is."""
    global _file, _fd, _torn
    _file = "%s/%d-%d-py" % (_folder, _pid, _System.clock(_BOOTTIME) * 1e9)
    _fd, _torn = -1, False
    try:
        folder = _text(_System.cwd())
    except OSError:  # it was deleted
        folder = b""
    program, version, *argv = map(_text, _who)
    who = (b"%d" % _pid, b"%d" % _System.parent(), _text(_System.environ.get(b"RANK", b"")))
    record(b"P", b"python", *who, program, version, folder, *argv)


def record(kind, *fields, ms=None):
    """Append one record. fields: bytes without TAB and newline (see _text). Loses it where the disk is full."""
    global _torn, _fork_ms
    if ms is None:
        ms = _System.clock(_BOOTTIME) * 1000
    line = b"\t".join((kind, b"%d" % ms, *fields)) + b"\n"
    if _pid != _System.pid():  # a fork that Python was not told of
        _fork_ms = None
        _forked()
    try:
        fd = _descriptor()
    except OSError:  # the folder has gone, or no descriptor is free
        return
    if _torn:
        line = b"\n" + line
    try:
        _torn = _System.write(fd, line) != len(line)
    except OSError:
        _torn = True
    finally:
        if fd != _fd:
            _System.close(fd)


def _descriptor():
    """One of this process's file: kept where nothing else is likely to want its number, else for one record only."""
    global _fd, _identity
    if _is_ours(_fd):
        return _fd
    low = _System.open(_file, _APPEND, 0o600)
    try:
        from fcntl import F_DUPFD_CLOEXEC, fcntl

        high = fcntl(low, F_DUPFD_CLOEXEC, _HIGH_FD)
    except (ImportError, OSError):  # fewer descriptors are allowed, and the program may need them all
        return low
    _System.close(low)
    info = _System.fstat(high)
    _identity, _fd = (info.st_dev, info.st_ino), high
    return high


def _is_ours(fd):
    """Whether the descriptor is still our file: programs close what they do not know, and the number is given again."""
    if fd < 0:
        return False
    try:
        info = _System.fstat(fd)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == _identity


def _forking():
    """What code the child has from its parent is a question of when this was: it may take its time to begin."""
    global _fork_ms
    _fork_ms = _System.clock(_BOOTTIME) * 1000


def _forked():
    """A child has a file of its own, and has opened nothing yet."""
    global _pid, _alone, _fork_ms
    try:
        if _is_ours(_fd):
            _System.close(_fd)
        _pid, _alone = _System.pid(), 0
        for seen in (_known, _near, _versions, _folders, _code_seen, _written, _silent):
            seen.clear()
        _begin()
        record(b"I", b"%d" % _System.parent(), ms=_fork_ms)
        _fork_ms = None
    except Exception:  # what leaves here is printed
        pass


def _text(text):
    """A text as a field: bytes with TAB, newline and backslash escaped."""
    raw = text.encode(_ENCODING, "surrogateescape") if type(text) is str else text
    if b"\\" in raw or b"\t" in raw or b"\n" in raw:
        raw = raw.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")
    return raw


def _name(given):
    """A name as a plain str; None if it is none, or if code of the user's would have to be asked for it."""
    kind = type(given)
    if kind is str:
        return given
    if issubclass(kind, str):
        return str.__str__(given)
    if issubclass(kind, bytes):
        return bytes.decode(given, _ENCODING, "surrogateescape")
    if kind is posix.DirEntry:
        return _name(given.path)
    return str(given) if kind.__module__ in ("pathlib", "pathlib._local") else None


def _path(given):
    """A path as str, absolute; None if it is none, or not to be recorded."""
    path = given if type(given) is str else _name(given)
    if not path:
        return None
    if path[0] != "/":
        path = _System.cwd() + "/" + path
    if "/.." in path:
        path = _without_links(path)
    return None if path.startswith(_skipped) or "/site-packages/" in path else path


def _without_links(path):
    """What a way up after a link leads to is not what the names alone say."""
    folder, _, name = path.rpartition("/")
    try:
        fd = _System.open(folder or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return path
    try:
        return posix.readlink("/proc/self/fd/%d" % fd).rstrip("/") + "/" + name
    finally:
        _System.close(fd)


def _path_at(given, folder_fd):
    """Likewise, for a name that counts from the folder of a descriptor; -1: the working folder."""
    name = _name(given)
    if name and name[0] != "/" and folder_fd >= 0:
        name = posix.readlink("/proc/self/fd/%d" % folder_fd) + "/" + name
    return _path(name)


# --- events -------------------------------------------------------------------------------------------------


def _listener(handlers, is_own):
    """The audit hook. It goes by no global names: Python takes these away before the last of the user's code runs."""
    handler_of = handlers.get
    may_continue = sys.version_info >= (3, 10)

    def listen(event, args):
        handler = handler_of(event)
        if handler is None:
            return
        try:
            handler(args)
        except RecursionError:
            if not may_continue:
                raise  # old Pythons abort where this is caught and the recursion goes on
        except Exception as error:
            if not is_own(error):
                raise  # a signal handler of the user's ran meanwhile, and it was that which raised

    return listen


def _is_own(error, here=_HERE):
    """Whether nothing but our own code was running when an error was raised."""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith((here, "<frozen ")):
            return False
        trace = trace.tb_next
    return True


def _opened(args):
    path, _, flags = args
    if flags & _WRITING:
        path = _path(path)
        if path is not None:
            if flags & os.O_RDWR and not flags & _EMPTYING and _exists(path):
                _see(path)
            wrote(path)
    elif flags & _NO_FILE:
        return
    elif type(path) is not str:
        _see(path)
    elif path not in _known and path not in _near:
        if _marks and path.rpartition("/")[0] in _folders and not path.endswith(_CHANGING):
            # One more of very many, whose folder was looked at before. As in _mark, without a call: this is the
            # path that a data set of many small files takes each time.
            bit = _crc32(path.encode(_ENCODING, "surrogateescape")) & _LAST_MARK
            _marks[bit >> 3] |= 1 << (bit & 7)
        else:
            _see(path)


def _see(given):
    """A file that is opened for reading under a name that is not known yet."""
    global _alone
    path = _path(given)
    if path is None:
        _know(given)
    elif path.endswith(_CHANGING) and len(_versions) < 10 * _ALONE:
        info = _System.stat(path)
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
    if type(given) is str:
        names = _known if given[:1] == "/" else _near
        if len(names) < 4 * _ALONE:
            names.add(given)


def _moved(args):
    """After a change of the working folder, relative names are other files."""
    _near.clear()


def _mark(path):
    """One of very many: its folder is named once, and the file leaves a mark."""
    global _marks
    if "/." in path or "//" in path:
        path = _plain(path)
    folder = path.rpartition("/")[0]
    if folder not in _folders and len(_folders) < _FOLDERS:
        _folders.add(folder)
        record(b"F", _text(folder))
    if _marks is None:
        _marks = _map_marks()
    if _marks:
        bit = _crc32(path.encode(_ENCODING, "surrogateescape")) & _LAST_MARK
        _marks[bit >> 3] |= 1 << (bit & 7)


def _plain(path):
    """As os.path.normpath, which the user's code may have replaced."""
    parts = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _map_marks():
    """The map that all processes of the tasks share; () where it cannot be made."""
    global _crc32
    try:
        from binascii import crc32
        from mmap import mmap

        _crc32 = crc32
        fd = _System.open(_folder + "/reads", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            posix.posix_fallocate(fd, 0, _MARK_BYTES)  # a full disk must not become SIGBUS
            return mmap(fd, _MARK_BYTES)
        finally:
            _System.close(fd)
    except (ImportError, OSError) as error:
        record(b"E", _text("marks of files that are read in great number: %s" % error))
        return ()


def wrote(path):
    """A file was opened for writing. Said again once a second at most: each time it may hold another content."""
    now = _System.clock(_BOOTTIME)
    if now - _written.get(path, -1.0) >= 1.0:
        if len(_written) > 10 * _ALONE:
            _written.clear()
        _written[path] = now
        record(b"W", _text(path))


def _renamed(args):
    source, target = _path_at(args[0], args[2]), _path_at(args[1], args[3])
    if source is not None or target is not None:
        record(b"M", _text(source or _name(args[0])), _text(target or _name(args[1])))


def _named_again(args):
    source, target = _path_at(args[0], args[2]), _path_at(args[1], args[3])
    if source is not None and target is not None:
        record(b"K", _text(source), _text(target))


def _cut(args):
    path = _path(args[0])
    if path is not None:
        wrote(path)


def _removed(args):
    path = _path_at(args[0], args[1])
    if path is not None and path in _written:
        record(b"D", _text(path))


def _compiled(args):
    source, name = args
    if type(name) is not str or name[:1] == "<" or name.startswith(_skipped):
        return
    path = _path(name) if isinstance(source, (bytes, str, bytearray, memoryview)) else None
    found = _content(path) if path is not None else None
    if found is None and (path is None or not _is_in_archive(path)):
        return  # generated code, whatever it calls itself; or the main script, whose source is not told
    source = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else bytes(source)
    if found is not None and source != found and source == _as_text(found):
        source = found
    if source == found or path.endswith(".py"):  # else it was made of the file, such as a template's code
        _took("source", path, source)


def _is_in_archive(path):
    """Whether one of the folders that a path names is a file: a zip that is imported from."""
    while "/" in path[1:]:
        path = path.rpartition("/")[0]
        if _exists(path):
            return not _System.stat(path).st_mode & 0o040000
    return False


def _as_text(content):
    """What compile() is given of a file that was read as text, without its line ends, or its mark of UTF-8."""
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _executed(args):
    code = args[0]
    name = code.co_filename
    if name in _code_seen or name[-3:] != ".py" or code.co_name != "<module>" or name.startswith(_skipped):
        return
    path = _path(name)
    if path is not None and path not in _code_seen:
        source = _content(path)
        if source is not None:
            _took("bytecode", path, source)


def _ran(args):
    """The main script, which Python reads without telling its source."""
    path = _path(args[0])
    if path is not None:
        _took("run", path, _content(path))
        _code_seen.setdefault(_name(args[0]), "")


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
    kept = "%s/code-%s" % (_folder, blob)
    if len(source) > _KEPT_BYTES or _is_as_it_was(path) or _exists(kept):
        return
    unfinished = "%s.%d" % (kept, _pid)
    try:
        fd = _System.open(unfinished, _NEW, 0o600)
        try:
            is_whole = _System.write(fd, source) == len(source)
        finally:
            _System.close(fd)
        if is_whole:
            _System.rename(unfinished, kept)
    except OSError:
        pass  # the disk is full: its id is on record all the same


def _is_as_it_was(path):
    """Whether a file of the checkout has not been changed since the run began."""
    try:
        began_ns = _System.stat(_folder + "/began").st_mtime_ns
        return path.startswith(_code) and _System.stat(path).st_ctime_ns < began_ns
    except OSError:
        return False


def _exists(path):
    try:
        _System.stat(path)
    except OSError:
        return False
    return True


def _blob(content):
    """What git calls a file with this content."""
    try:
        from _sha1 import sha1
    except ImportError:
        from hashlib import sha1
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _content(path):
    try:
        fd = _System.open(path, _READ)
    except OSError:
        return None
    try:
        blocks = []
        while True:
            block = _System.read(fd, 1 << 20)
            if not block:
                return b"".join(blocks)
            blocks.append(block)
    except OSError:
        return None
    finally:
        _System.close(fd)


def _imported(args):
    """Only the loading of a shared library tells its file."""
    if args[1] is not None:
        _linked((args[1],))


def _linked(args):
    name = _name(args[0])
    if name is None or "/" not in name:
        return
    path = _path(name)
    if path is not None and path not in _code_seen:
        _code_seen[path] = "-"
        record(b"C", b"native", b"-", _text(path))


def _started(args):
    program, argv, _, environment = args
    words = _words([argv] if isinstance(argv, (str, bytes)) else argv)
    _child(_name(program) or words[0], words, environment)


def _replaced(args):
    program, argv, environment = args
    program = _name(program)
    if program is not None and (
        "/" not in program or _exists(program)
    ):  # execvp tries one folder after the other
        _child(program, _words(argv), environment)


def _shell(args):
    _child("/bin/sh", [], None)


def _words(argv):
    return [_name(word) or "" for word in argv[:64]] if isinstance(argv, (list, tuple)) else [""]


def _child(program, words, environment):
    """Say so if what is started will not tell what it does."""
    name = program.rpartition("/")[2]
    if not name.startswith(("python", "pypy")):
        if name not in _silent and len(_silent) < _ALONE:
            _silent.add(name)
            record(b"N", _text(program))
        return
    why = None
    begins_by_itself = (
        "mllaunch_begin" in sys.modules
    )  # from the image's own site-packages, which only -S leaves out
    if _is_isolated(words, "S" if begins_by_itself else "IES"):
        why = b"isolated"
    elif not begins_by_itself and not _has_hook(_System.environ if environment is None else environment):
        why = b"environment"
    if why is not None:
        record(b"X", why, *map(_text, words))


def _is_isolated(words, letters):
    """Whether the options of a Python keep the hook out."""
    words = iter(words[1:])
    for word in words:
        if word[:1] != "-" or word[:2] == "--":
            return False
        for number, letter in enumerate(word[1:], 2):
            if letter in letters:
                return True
            if letter in "cm":
                return False
            if letter in "WX":  # the rest, or the next word, says what
                if number == len(word):
                    next(words, None)
                break
    return False


def _has_hook(environment):
    """Whether a child's environment has what the hook needs; true where it is of a kind that we do not know."""
    if type(environment) is type(os.environ):
        environment = environment._data
    if type(environment) is not dict:
        return True
    found = {_name(name): _name(value) for name, value in environment.items()}
    has_folder = _folder == _OURS or found.get("MLLAUNCH_TRACE") == _folder
    return has_folder and _PARENT in (found.get("PYTHONPATH") or "").split(":")


def _database(args):
    name, is_read_only = _name(args[0]), False
    if name and name[:5] == "file:":
        name, _, options = name[5:].partition("?")
        is_read_only = "mode=ro" in options.split("&")
        name = "/" + name.lstrip("/") if name[:1] == "/" else name
    if not name or name == ":memory:":
        return
    path = _path(name)
    if path is not None:
        if _exists(path):
            _see(path)
        if not is_read_only:
            wrote(path)


_HANDLERS = {
    "open": _opened,
    "os.chdir": _moved,
    "os.rename": _renamed,
    "os.link": _named_again,
    "os.truncate": _cut,
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
        for finder in list(sys.meta_path):
            if finder is _Finder:
                continue
            find = getattr(finder, "find_spec", None)
            if find is None:
                return None  # an old one, which only Python itself knows how to ask
            spec = find(name, path, target)
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
        "torch.export",
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
        loader.__dict__.pop("exec_module", None)
        run(module)
        _wrap(module)

    # So that an error in the library is shown as ever: Python leaves the importing itself out of it.
    exec_module.__code__ = exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap_external>")
    try:
        loader.exec_module = exec_module
    except AttributeError:
        record(b"E", _text("%s: its functions are not followed: its loader cannot be changed" % spec.name))


_package = sys.modules[__name__]


def _wrap(module):
    try:
        sys.modules.setdefault(__name__, _package)  # a program may have thrown out what it does not know
        from mllaunch_hook import wrappers

        wrappers.wrap(module)
    except Exception as error:
        if not _is_own(error):
            raise
        record(
            b"E", _text("%s: its functions are not followed: %s" % (module.__name__, type(error).__name__))
        )
