"""GPUs as NVML sees them: what there is, how busy each is, and who uses it.

A thin layer over the module ``pynvml`` of the distribution nvidia-ml-py. Every call into NVML can hang for
ever on a broken driver (the process then sleeps inside the kernel, where not even SIGKILL reaches it). So
``Gpus`` asks in a daemon thread of its own and waits only so long; nobody else calls NVML.
Reference: docs.nvidia.com/deploy/nvml-api.
"""

from __future__ import annotations

import os
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

from mllaunch_agent.probes import NotCaptured, not_captured, optional_module, processes
from mllaunch_agent.probes.bounded import Bounded, Overdue

__all__ = ["Gpus", "Reading"]

FAKE_VARIABLE = "MLLAUNCH_FAKE_GPUS"
LIBRARY = "libnvidia-ml.so.1"
TIMEOUT_S = (
    10.0  # the first NVML call without the persistence daemon loads the driver: seconds on an 8-GPU machine
)

T = TypeVar("T")


class Reading(NamedTuple):
    """One GPU at one moment. None: this GPU does not report it.

    utilisation_percent: share of the last sampling period (1/6 s to 1 s) with a kernel running. energy_mj:
    since the driver was loaded. processes: GPU memory by pid, None where the driver does not say how much.
    """

    utilisation_percent: Optional[int] = None
    memory_bytes: Optional[int] = None
    power_mw: Optional[int] = None
    temperature_c: Optional[int] = None
    energy_mj: Optional[int] = None
    processes: Optional[Dict[int, Optional[int]]] = None


class Gpus:
    """The node's GPUs. Nothing raises; nothing takes longer than ``timeout_s``; one thread at a time may ask.

    What could not be found out is None, and the reason is in ``not_captured()``, once for as long as it
    lasts. import_path: where pynvml may be found. MLLAUNCH_FAKE_GPUS=N in ``environ`` (default: the
    process's) pretends N GPUs, for developing without one: they have stable UUIDs, no processes and no
    values, and say that they are fake.
    """

    def __init__(
        self,
        import_path: Sequence[str],
        environ: Optional[Mapping[str, str]] = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._import_path = list(import_path)
        self._environ = os.environ if environ is None else environ
        self._thread = Bounded(timeout_s)
        self._session: Optional[Session] = None
        self._connected = False
        self._missing: List[NotCaptured] = []
        self._lasting: Dict[str, str] = {}

    def list(self) -> List[Dict[str, Any]]:
        """[{"index", "uuid", "name", "memory_bytes"}] in NVML's order, with "fake": True for pretended ones.

        Empty when there is none; those that do not answer are left out.
        """
        return self._ask("gpus", lambda session: session.list()) or []

    def versions(self) -> Dict[str, Optional[str]]:
        """{"driver", "cuda"}: the driver's, and the newest CUDA it supports, such as "12.8"."""
        unknown: Dict[str, Optional[str]] = {"driver": None, "cuda": None}
        return self._ask("driver", lambda session: session.versions()) or unknown

    def sample(self, uuids: Sequence[str]) -> Dict[str, Optional[Reading]]:
        """By UUID, what each GPU does right now; None for one that does not answer."""
        unknown: Dict[str, Optional[Reading]] = dict.fromkeys(uuids)
        return self._ask("gpu samples", lambda session: session.sample(uuids)) or unknown

    def processes(self, uuid: str, secrets: Sequence[str] = ()) -> Optional[List[Dict[str, Any]]]:
        """[{"pid", "memory_bytes", "user", "command"}] of those who use a GPU; None when it does not answer.

        secrets: values to be masked in the commands, beside those that look like secrets.
        user and command are None for a process that cannot be seen: in another pid namespace, or gone.
        """
        held = self._ask("gpu processes", lambda session: session.processes(uuid))
        if held is None:
            return None
        return [
            {
                "pid": pid,
                "memory_bytes": memory,
                "user": processes.user_of(pid),
                "command": processes.command(pid, secrets),
            }
            for pid, memory in sorted(held.items())
        ]

    def not_captured(self) -> List[NotCaptured]:
        """What could not be found out, and why; every entry is handed out once."""
        missing, self._missing = self._missing, []
        return missing

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()

    def _ask(self, what: str, question: Callable[[Session], Answer[T]]) -> Optional[T]:
        """The session's answer; None if there is no session or it does not answer."""
        try:
            answer = self._thread.call(lambda: self._answer(question))
        except Overdue as error:
            self._note({"nvml": "NVML: %s" % error})
            return None
        except Exception as error:  # noqa: BLE001  a driver of another age fails in ways nobody foresaw
            self._note({what: "NVML: %r" % error})
            return None
        self._note(answer.missing)
        self._lasting.pop("nvml", None)
        for subject in answer.sound:
            self._lasting.pop(subject, None)
        return answer.value

    def _answer(self, question: Callable[[Session], Answer[T]]) -> Answer[T]:
        """In the thread: connect at the first question, then ask."""
        if not self._connected:
            self._session, why = connect(self._import_path, self._environ)
            self._connected = True  # a driver that refused once is not asked again every second
            if why is not None:
                return Answer(None, {"gpus": why}, ())
        if self._session is None:
            return Answer(None, {}, ())
        return question(self._session)

    def _note(self, missing: Mapping[str, str]) -> None:
        for what, why in missing.items():
            if self._lasting.get(what) != why:
                self._lasting[what] = why
                self._missing.append(not_captured(what, why))


class Answer(Generic[T]):
    """What a session found: the value, what is missing from it and why, and which GPUs answered."""

    def __init__(self, value: Optional[T], missing: Mapping[str, str], sound: Iterable[str] = ()) -> None:
        self.value = value
        self.missing = missing
        self.sound = sound


def connect(import_path: List[str], environ: Mapping[str, str]) -> Tuple[Optional[Session], Optional[str]]:
    """A session with NVML; (None, None) on a node without GPUs, (None, why) when they cannot be asked."""
    wanted = environ.get(FAKE_VARIABLE, "")
    if wanted:
        if wanted.isdigit():
            return Session(FakeNvml(int(wanted))), None
        return None, "%s=%r is not a number" % (FAKE_VARIABLE, wanted)
    if not _is_loadable(LIBRARY):
        devices = [name for name in _names("/dev") if name.startswith("nvidia") and name[6:].isdigit()]
        return None, "/dev/%s exists but %s cannot be loaded" % (min(devices), LIBRARY) if devices else None
    return _initialise(optional_module("pynvml", import_path))


def _initialise(nvml: Any) -> Tuple[Optional[Session], Optional[str]]:
    if nvml is None:
        return None, "%s is here, but the Python module of nvidia-ml-py is not" % LIBRARY
    if hasattr(nvml, "__path__"):
        return None, "pynvml is the deprecated distribution here, not nvidia-ml-py"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return None, "NVML: %s" % error
    return Session(nvml), None


class Session:
    """An initialised NVML, real or fake."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handles: Dict[str, Any] = {}

    def list(self) -> Answer[List[Dict[str, Any]]]:
        nvml = self._nvml
        gpus: List[Dict[str, Any]] = []
        missing: Dict[str, str] = {}
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            return Answer(None, {"gpus": "NVML: %s" % error})
        for index in range(count):
            try:
                gpus.append(self._described(index))
            except nvml.NVMLError as error:
                missing["gpu %d" % index] = "NVML: %s" % error
        return Answer(gpus, missing)

    def versions(self) -> Answer[Dict[str, Optional[str]]]:
        nvml = self._nvml
        found: Dict[str, Optional[str]] = {"driver": None, "cuda": None}
        try:
            driver = nvml.nvmlSystemGetDriverVersion()
            cuda = nvml.nvmlSystemGetCudaDriverVersion()
        except nvml.NVMLError as error:
            return Answer(found, {"driver": "NVML: %s" % error})
        if driver is not None:
            found["driver"] = _text(driver)
        if cuda is not None:
            found["cuda"] = "%d.%d" % (cuda // 1000, cuda % 1000 // 10)
        return Answer(found, {})

    def sample(self, uuids: Sequence[str]) -> Answer[Dict[str, Optional[Reading]]]:
        answers = [(uuid, self._of(uuid, self._reading)) for uuid in uuids]
        missing: Dict[str, str] = {}
        for _, answer in answers:
            missing.update(answer.missing)
        return Answer(
            {uuid: answer.value for uuid, answer in answers},
            missing,
            ["gpu %s" % uuid for uuid, answer in answers if not answer.missing],
        )

    def processes(self, uuid: str) -> Answer[Dict[int, Optional[int]]]:
        return self._of(uuid, self._processes)

    def _of(self, uuid: str, question: Callable[[Any], Optional[T]]) -> Answer[T]:
        """What one GPU answers."""
        subject = "gpu %s" % uuid
        try:
            if uuid not in self._handles:
                self._handles[uuid] = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            return Answer(question(self._handles[uuid]), {}, [subject])
        except self._nvml.NVMLError as error:
            self._handles.pop(uuid, None)  # after a reset the GPU has another handle
            return Answer(None, {subject: "NVML: %s" % error})

    def _described(self, index: int) -> Dict[str, Any]:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        gpu = {
            "index": index,
            "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
            "name": _text(nvml.nvmlDeviceGetName(handle)),
            "memory_bytes": nvml.nvmlDeviceGetMemoryInfo(handle).total,
        }
        return dict(gpu, fake=True) if isinstance(nvml, FakeNvml) else gpu

    def _reading(self, handle: Any) -> Reading:
        nvml = self._nvml
        memory = self._supported(nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = self._supported(nvml.nvmlDeviceGetUtilizationRates, handle)
        return Reading(
            None if rates is None else rates.gpu,
            None if memory is None else memory.used,
            self._supported(nvml.nvmlDeviceGetPowerUsage, handle),
            self._supported(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            self._supported(nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
            self._processes(handle),
        )

    def _processes(self, handle: Any) -> Optional[Dict[int, Optional[int]]]:
        nvml = self._nvml
        held: Dict[int, Optional[int]] = {}
        answered = False
        for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            found = self._supported(ask, handle)
            if found is None:
                continue
            answered = True
            for process in found:
                held[process.pid] = process.usedGpuMemory
        return held if answered else None

    def _supported(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What NVML answers, or None if this GPU or this driver does not offer the value. Other errors are
        raised."""
        nvml = self._nvml
        try:
            return ask(*arguments)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                return None
            raise


class FakeNvml:
    """Pretends N idle GPUs with the few functions that ``Gpus`` calls. A developer feature, see
    ``connect``."""

    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_NOT_FOUND = 6

    class NVMLError(Exception):
        def __init__(self, value: int, message: str) -> None:
            super().__init__(message)
            self.value = value

    class Memory(NamedTuple):
        total: Optional[int] = None
        used: Optional[int] = None

    def __init__(self, count: int) -> None:
        import zlib

        host = zlib.crc32(os.uname().nodename.encode())
        self._uuids = ["GPU-fake-%08x-%d" % (host, index) for index in range(count)]

    def nvmlDeviceGetCount(self) -> int:
        return len(self._uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return self._uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self._uuids:
            raise self.NVMLError(self.NVML_ERROR_NOT_FOUND, "Not Found")
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:
        return "fake GPU"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Memory:
        return self.Memory()

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Sequence[Any]:
        return ()

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> Sequence[Any]:
        return ()

    def _unknown(self, *arguments: Any) -> None:
        """No value."""

    nvmlSystemGetDriverVersion = nvmlSystemGetCudaDriverVersion = _unknown
    nvmlDeviceGetUtilizationRates = nvmlDeviceGetPowerUsage = _unknown
    nvmlDeviceGetTemperature = nvmlDeviceGetTotalEnergyConsumption = _unknown


def _text(value: Any) -> str:
    """nvidia-ml-py returned bytes before version 12."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_loadable(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
