"""What a node answers about an attempt, whoever asks: in-process for this machine, over a transport for others.

Shipping is "send me bytes from offset N" of a stream. The bytes of stdout and stderr are masked here, before
they leave; the job's own files stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple

from mllaunch_agent import protocol, redaction, system

_BLOCK = 1 << 20
_LEAVING_S = 2.0  # from its seal an agent has milliseconds to live


def lock_path(folder: str) -> str:
    return os.path.join(folder, "supervisor.lock")


def read_json(path: str) -> Optional[Any]:
    """The document in a file that is written atomically; None if it is not there or is damaged."""
    data = system.read_file(path)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return None


class AttemptFolder:
    """One attempt on this node, as it lies on the disk. Reads only, apart from the requests that it leaves."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._masker: Optional[redaction.Masker] = None
        self._seal: Optional[protocol.Seal] = None

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def spec(self) -> Optional[protocol.TaskSpec]:
        spec: Optional[protocol.TaskSpec] = read_json(self.path("spec.json"))
        return spec

    def seal(self) -> Optional[protocol.Seal]:
        if self._seal is None:
            self._seal = read_json(self.path("seal.json"))
        return self._seal

    def is_alive(self) -> bool:
        """Whether a supervisor looks after the attempt."""
        return system.is_locked(lock_path(self.folder))

    def lengths(self) -> Dict[str, int]:
        """How many bytes of each stream can be shipped; after the seal these are final."""
        seal = self.seal()
        if seal:
            return {name: stream["size_bytes"] for name, stream in seal["streams"].items()}
        try:
            names = sorted(os.listdir(self.path("streams")))
        except OSError:
            return {}
        # Events first, and only then whether the tasks have ended: who reads the event of the end finds all of the
        # output, for the file `ended` is written before that event.
        lengths = {name: self._length(name, False) for name in names if not is_output(name)}
        ended = self._has_ended()
        lengths.update({name: self._length(name, ended) for name in names if is_output(name)})
        return lengths

    def _length(self, stream: str, ended: bool) -> int:
        try:
            fd = os.open(self._stream_path(stream), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            size = os.fstat(fd).st_size
            if is_output(stream):
                return redaction.shippable(lambda o, n: os.pread(fd, n, o), size, ended, self.masker())
            return _end_of_lines(fd, size)
        finally:
            os.close(fd)

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes of what can be shipped, from ``offset`` on."""
        seal = self.seal()
        ended = seal is not None or self._has_ended()  # asked before the size, which is then final
        try:
            fd = os.open(self._stream_path(stream), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            size = os.fstat(fd).st_size
            if seal:
                # A process that outlived the seal may have written on; that is not part of the record.
                sealed = seal["streams"].get(stream)
                size = min(size, sealed["size_bytes"]) if sealed else 0
            if is_output(stream):
                return redaction.read_masked(
                    lambda o, n: os.pread(fd, n, o), offset, limit, size, ended, self.masker()
                )
            end = size if seal else _end_of_lines(fd, size)
            return os.pread(fd, max(0, min(limit, end - offset)), offset)
        finally:
            os.close(fd)

    def _has_ended(self) -> bool:
        """Whether no process of the tasks lives any more, so that their output is final."""
        return os.path.exists(self.path("ended"))

    def masker(self) -> redaction.Masker:
        if self._masker is None:
            spec = self.spec()
            self._masker = make_masker(spec["secrets"] if spec else [])
        return self._masker

    def _stream_path(self, stream: str) -> str:
        if "/" in stream or stream.startswith(".") or "\0" in stream:
            raise ValueError("not a stream: %r" % stream)
        return self.path(os.path.join("streams", stream))

    def request_stop(self, request: protocol.StopRequest) -> None:
        """Leave a stop request; the supervisor sees it within a tenth of a second. A later one replaces it."""
        before = self.stop_request()
        if before and before["now"]:
            request = {**request, "now": True}  # who asked for it at once is not to wait for who did not
        system.write_atomic(self.path("stop.json"), json.dumps(request).encode())

    def stop_request(self) -> Optional[protocol.StopRequest]:
        request: Optional[protocol.StopRequest] = read_json(self.path("stop.json"))
        return request

    def output_now(self) -> List[Dict[str, Any]]:
        """What is in the output folder at this moment, as lines of the files stream without digests."""
        from mllaunch_agent import outputs

        spec = self.spec()
        if spec is None:
            return []
        return list(outputs.glance(self._work_root(), os.path.join(spec["workdir"], spec["output"])))

    def open_output(self, path: str) -> "OpenOutput":
        """A regular file that the tasks wrote; path: as in the files stream. OSError.

        Follows no link, so it never leads out of the work folder, whatever a task does to it meanwhile.
        """
        import stat

        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        folder = os.open(self._work_root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            parts = path.split("/")
            if not all(part not in ("", ".", "..") for part in parts):
                raise OSError("not a plain relative path: %r" % path)
            for part in parts[:-1]:
                inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            found = os.open(parts[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise OSError("%r is no regular file any more" % path)
        return OpenOutput(found)

    def _work_root(self) -> str:
        spec = self.spec()
        return (spec and spec["in_place"]) or self.path("work")

    def fence(self) -> bool:
        """Make sure that nothing can start here any more; False if something has started or lives already."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        lock = system.try_lock(lock_path(self.folder))
        if lock is None:
            return False
        try:
            if os.path.exists(self.path("spec.json")):
                return False  # an agent took it; if that one is dead, another will
            system.write_atomic(self.path("fenced"), b"", durable=True)
            return True
        finally:
            os.close(lock)


class OpenOutput:
    """A file that is being copied. What it is may change meanwhile, which ``stat`` then shows."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def stat(self) -> Dict[str, int]:
        info = os.fstat(self._fd)
        return {
            "size_bytes": info.st_size,
            "mtime_ns": info.st_mtime_ns,
            "ctime_ns": info.st_ctime_ns,
            "mode": info.st_mode,
        }

    def read(self, offset: int, limit: int) -> bytes:
        return os.pread(self._fd, limit, offset)

    def close(self) -> None:
        os.close(self._fd)


# What the tasks wrote; in upper, if the checkout could not be cut down to it after the end.
_OUTPUTS = ("work", "work.beneath", "upper")
# What tells about them, or about a checkout that is still whole, stays beside them.
_BESIDE = ("seal.json", "spec.json", "supervisor.lock", "submit.lock", "workdir.json", "index", "overlay")


def held_bytes(folder: str) -> Optional[Tuple[int, int]]:
    """How much disk an attempt's folder takes: (our copies of streams, what its tasks wrote); None: it is gone."""
    if not os.path.isdir(folder):
        return (disk_bytes(_going(folder)), 0) if os.path.isdir(_going(folder)) else None
    ours = theirs = 0
    for name in _listed(folder):
        if name in _OUTPUTS:
            theirs += disk_bytes(os.path.join(folder, name))
        elif name not in _BESIDE:
            ours += disk_bytes(os.path.join(folder, name))
    return ours, theirs


def disk_bytes(path: str) -> int:
    """The blocks that would be freed with a file or folder; what is linked from elsewhere too would free none."""
    import stat

    total = 0
    links: Dict[Tuple[int, int], int] = {}
    todo = [path]
    while todo:
        place = todo.pop()
        try:
            info = os.lstat(place)
            if stat.S_ISDIR(info.st_mode):
                todo.extend(os.path.join(place, name) for name in os.listdir(place))
            else:
                seen = links[info.st_dev, info.st_ino] = links.get((info.st_dev, info.st_ino), 0) + 1
                if seen < info.st_nlink:
                    continue
            total += info.st_blocks * 512  # st_blocks counts in this unit on every file system, stat(2)
        except OSError:
            pass  # it went away meanwhile, or is not ours to look into
    return total


def release_streams(folder: str) -> None:
    """Free our copies of a sealed attempt's streams, which the run log has; what the tasks wrote stays.

    The folder goes altogether when they wrote nothing. Whoever calls has made sure of the run log. Can be repeated,
    also after a crash. Raises OSError while an agent looks after the attempt, or if it was never sealed.
    """
    _remove_rest(folder)
    with _nobody_at(folder) as is_there:
        if not is_there:
            return
        attempt = AttemptFolder(folder)
        if attempt.seal() is None:
            raise OSError("the attempt was never sealed")
        spec = attempt.spec()
        if spec:
            # The rest says where the outputs are; what may hold secrets is of no more use.
            reduced = dict(spec, environment={}, secrets=[])
            container = spec.get("container")
            if container is not None:
                reduced["container"] = dict(container, credentials=None)
            system.write_atomic(attempt.path("spec.json"), json.dumps(reduced).encode())
        for name in _listed(folder):
            if name not in _OUTPUTS + _BESIDE:
                _remove(attempt.path(name))
        # Of a run in place, the specification alone tells where the outputs are.
        if not (spec and spec["in_place"]) and not _has_outputs(folder):
            _remove_whole(folder)


def discard(folder: str) -> None:
    """Remove an attempt's folder with what the tasks wrote. Harmless when it is gone.

    Raises OSError while an agent looks after the attempt, or if a file system is mounted in it.
    """
    from mllaunch_agent import overlay, workdir

    _remove_rest(folder)
    with _nobody_at(folder) as is_there:
        if not is_there:
            return
        workdir.discard(folder)
        inside = overlay.mounts_in(folder)
        if inside:
            raise OSError("another file system is mounted at %r; unmount it first" % inside[0])
        _remove_whole(folder)


@contextmanager
def _nobody_at(folder: str) -> Iterator[bool]:
    """Keep agents away, and whoever else would free it; whether there is something to be freed. OSError if an agent
    is there. That of a sealed attempt is about to leave, and is waited for.
    """
    patience_s = time.monotonic() + _LEAVING_S
    lock = None
    try:
        lock = system.try_lock(lock_path(folder))
        while lock is None and time.monotonic() < patience_s and AttemptFolder(folder).seal() is not None:
            time.sleep(0.02)
            lock = system.try_lock(lock_path(folder))
    except FileNotFoundError:
        pass  # the folder has gone
    if lock is None and os.path.isdir(folder):
        raise OSError("an agent looks after the attempt")
    try:
        yield lock is not None and _is_at(lock, lock_path(folder))
    finally:
        if lock is not None:
            os.close(lock)


def _is_at(fd: int, path: str) -> bool:
    """Whether the open file is still the one of this path."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _listed(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _has_outputs(folder: str) -> bool:
    """Whether anything but plain folders is left of what the tasks wrote; what cannot be read counts."""
    unreadable: List[OSError] = []
    for output in _OUTPUTS:
        top = os.path.join(folder, output)
        for path, folders, files in os.walk(top, onerror=unreadable.append) if os.path.isdir(top) else ():
            if files or any(os.path.islink(os.path.join(path, name)) for name in folders):
                return True
    return bool(unreadable)


def _going(folder: str) -> str:
    """What an attempt's folder is called while it is removed."""
    return folder + ".going"


def _remove_whole(folder: str) -> None:
    """At once for others, who then find nothing and create nothing in it."""
    os.rename(folder, _going(folder))
    _remove_rest(folder)


def _remove_rest(folder: str) -> None:
    """What is left of a folder that was to be removed whole, also by somebody who did not come to its end."""
    import shutil

    if os.path.isdir(_going(folder)):
        shutil.rmtree(_going(folder), onerror=_tolerate_gone)


def _tolerate_gone(_: Any, path: str, error: Any) -> None:
    if not isinstance(error[1], FileNotFoundError):  # else another was at it, too
        raise error[1]


def _remove(path: str) -> None:
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def is_output(stream: str) -> bool:
    """Whether the stream is what a task printed, which alone may hold the user's secrets."""
    return stream.startswith(("stdout.", "stderr."))


def make_masker(secrets: List[str]) -> redaction.Masker:
    return redaction.Masker([value.encode("utf-8", "surrogateescape") for value in secrets])


def _end_of_lines(fd: int, size: int) -> int:
    """Where the last whole line ends: a record being written, or torn by a crash, is not shipped."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        complete = protocol.whole_lines(os.pread(fd, end - start, start))
        if complete:
            return start + len(complete)
        end = start
    return 0


class StreamDigest:
    """SHA-256 of a stream as it is shipped, computed as the stream grows."""

    def __init__(self, path: str, masker: Optional[redaction.Masker]) -> None:
        import hashlib

        self._path = path
        self._masker = masker
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._masked = 0

    def advance(self, size: int, final: bool, at_most: Optional[int] = None) -> int:
        """Take in the bytes up to ``size`` that are determined, at most that many in one call; how many it were."""
        with open(self._path, "rb", buffering=0) as f:
            fd = f.fileno()

            def pread(offset: int, count: int) -> bytes:
                return os.pread(fd, count, offset)

            done = 0
            block = min(_BLOCK, at_most or _BLOCK)
            while at_most is None or done < at_most:
                if self._masker is None:
                    data = pread(self._at, min(block, size - self._at))
                else:
                    data = redaction.read_masked(pread, self._at, block, size, final, self._masker)
                    self._masked += _count_masked(data, pread(self._at, len(data)))
                if not data:
                    break
                self._sha256.update(data)
                self._at += len(data)
                done += len(data)
        return done

    @property
    def offset(self) -> int:
        return self._at

    def seal(self, gaps: List[Dict[str, Any]]) -> protocol.StreamSeal:
        return {
            "size_bytes": self._at,
            "sha256": self._sha256.hexdigest(),
            "masked": self._masked,
            "gaps": gaps,
        }


def _count_masked(masked: bytes, raw: bytes) -> int:
    """How many ranges of ``raw`` were masked."""
    if masked == raw:
        return 0
    return sum(raw[m.start() : m.end()] != m.group() for m in re.finditer(rb"\*+", masked))


def stream_sizes(folder: str) -> List[Tuple[str, int]]:
    """Raw size of every stream file, by name."""
    streams = os.path.join(folder, "streams")
    return [(name, os.stat(os.path.join(streams, name)).st_size) for name in sorted(os.listdir(streams))]


def gpus(import_path: List[str]) -> Tuple[List[Dict[str, Any]], List[Dict[str, str]]]:
    """The node's GPUs [{"index", "uuid", "name", "memory_bytes"}], and what could not be found out."""
    from mllaunch_agent.probes.gpu import Gpus

    asked = Gpus(import_path)
    found = asked.list()
    return found, list(asked.not_captured())
