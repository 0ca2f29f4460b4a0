"""From what was found out about a machine to what is wrong with it and how to mend it; pure."""

from __future__ import annotations

from typing import Any, NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_GIT_OLDEST = (2, 31)  # GIT_CONFIG_COUNT, by which a repository's own programs are switched off
_LITTLE_BYTES = 1 << 30
_TOO_LITTLE_BYTES = 64 << 20
_CLOCK_S = 1.0
_CHECKOUTS = {
    "overlay": "a run's checkout is an overlay mount: it costs next to nothing",
    "reflink": "a run's checkout is made file by file, which takes time, but shares its bytes on the disk; "
    "only the administrator may mount overlays",
    "copy": "a run's checkout is a full copy of its code, in time and on the disk: neither may overlays be mounted "
    "here, nor can this file system share the bytes of files",
}


class Finding(NamedTuple):
    """The answer to one question. status: OK, WARNING or PROBLEM. fix: a command or what to do, if anything."""

    check: str
    status: str
    says: str
    fix: str | None = None


class Fault(NamedTuple):
    """Why something could not be done, in the words of whoever tried."""

    message: str
    hint: str | None = None


class Home(NamedTuple):
    """The folder with everything that is kept. fault: why nothing can be written there."""

    path: str
    fault: str | None
    free_bytes: int
    file_system: str
    is_local: bool


class Engine(NamedTuple):
    """The container engine. title: such as ``Docker 28.2.2``, None if it does not answer; problem then says why.

    is_denied: it is there, but not for this user. has_nvidia: whether it names NVIDIA's runtime.
    """

    title: str | None
    socket: str
    problem: str | None = None
    is_denied: bool = False
    has_nvidia: bool = False


class Facts(NamedTuple):
    """What was found out. git: its version, None if there is none. repository: (root, changed files) or why not.

    python: (path, version) of the interpreter for runs, or why there is none. run_log: (schema version or None
    where nothing is stored, ours, damage). code: None, or what is wrong with the store of code. agent: what it
    answered (mllaunch_agent.checkup), or why it did not. unattended: names of runs that no agent looks after.
    mounts: what is still mounted of runs that are over. leftovers: what killed processes left.
    """

    git: str | None
    repository: tuple[str, int] | Fault
    config: Fault | None
    python: tuple[str, str] | Fault
    home: Home
    run_log: tuple[int | None, int, tuple[str, ...]]
    code: str | None
    agent: dict[str, Any] | Fault
    engine: Engine
    unattended: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()


class NodeAnswer(NamedTuple):
    """What a machine reached by SSH answered. agent: as in Facts. engine: as for the call "engine".

    clock_offset_s: how far its clock is ahead of ours. lacks_python: the interpreter that is configured for its runs,
    if it has not got that.
    """

    agent: dict[str, Any]
    engine: dict[str, Any]
    clock_offset_s: float
    lacks_python: str | None = None


def evaluate(facts: Facts) -> list[Finding]:
    """Every finding, in the order in which a person would go about it."""
    return [
        _git(facts.git),
        _repository(facts.repository),
        _config(facts.config),
        _python(facts.python),
        _home(facts.home),
        _space(facts.home),
        _file_system(facts.home),
        _run_log(facts.run_log, facts.home.path),
        _code(facts.code),
        *_agent(facts.agent),
        _engine(facts.engine, facts.agent),
        *_stale(facts),
    ]


def evaluate_node(name: str, answer: NodeAnswer | Fault) -> list[Finding]:
    """Every finding about a machine that is reached by SSH."""
    if isinstance(answer, Fault):
        return [Finding("reach", PROBLEM, answer.message, answer.hint)]
    return [
        Finding("reach", OK, f"{name} lets us in, and its Python is good enough"),
        *_lacking_python(name, answer.lacks_python),
        _clock(answer.clock_offset_s),
        *_agent(answer.agent),
        _node_engine(answer.engine, answer.agent),
    ]


def _lacking_python(name: str, python: str | None) -> list[Finding]:
    if python is None:
        return []
    fix = f"name one that is there: nodes: [{{name: {name}, python: /PATH/TO/python}}]   in mllaunch.yaml"
    return [Finding("python for runs", PROBLEM, f"{name} has no {python}, which is configured", fix)]


def _clock(offset_s: float) -> Finding:
    if abs(offset_s) < _CLOCK_S:
        return Finding("clock", OK, "it goes as ours does")
    where = "ahead of" if offset_s > 0 else "behind"
    says = f"it is {abs(offset_s):.1f} s {where} ours: times in records differ so much"
    return Finding("clock", WARNING, says, "sudo timedatectl set-ntp true")


def _node_engine(engine: dict[str, Any], agent: dict[str, Any]) -> Finding:
    if engine["version"] is None:
        fix = "sudo usermod -aG docker $USER   on that machine" if engine["is_denied"] else None
        says = f"no container engine: {engine['problem']}: runs are processes"
        return Finding("containers", WARNING if fix else OK, says, fix)
    says = f"container engine {engine['version'].get('Version')} answers: runs are containers"
    return _for_gpus(says, bool((agent.get("gpus") or {}).get("found")), "nvidia" in engine["runtimes"])


def _engine(engine: Engine, agent: dict[str, Any] | Fault) -> Finding:
    if engine.title is None:
        says = f"{engine.problem}: runs are processes"
        if engine.is_denied:
            return Finding("containers", WARNING, says, "sudo usermod -aG docker $USER, and log in again")
        return Finding("containers", OK, says)
    says = f"{engine.title} answers at {engine.socket}: runs are containers"
    has_gpus = isinstance(agent, dict) and bool((agent.get("gpus") or {}).get("found"))
    return _for_gpus(says, has_gpus, engine.has_nvidia)


def _for_gpus(says: str, has_gpus: bool, has_nvidia: bool) -> Finding:
    if has_gpus and not has_nvidia:
        fix = "install the NVIDIA container toolkit, then: sudo nvidia-ctk runtime configure --runtime=docker"
        return Finding("containers", WARNING, f"{says}, but it names no NVIDIA runtime for GPUs", fix)
    return Finding("containers", OK, says)


def _git(version: str | None) -> Finding:
    if version is None:
        return Finding("git", PROBLEM, "git is not on PATH", "install git 2.31 or newer")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _GIT_OLDEST:
        return Finding("git", PROBLEM, f"git {version} is older than 2.31", "install a newer git")
    return Finding("git", OK, f"git {version}")


def _repository(found: tuple[str, int] | Fault) -> Finding:
    if isinstance(found, Fault):
        return Finding("repository", WARNING, found.message, found.hint)
    root, changed = found
    if changed:
        many = f"{changed} uncommitted file{'s' if changed > 1 else ''}"
        return Finding(
            "repository", WARNING, f"{root} has {many}", "git commit, or: mllaunch submit --allow-dirty ..."
        )
    return Finding("repository", OK, f"{root} is clean")


def _config(fault: Fault | None) -> Finding:
    if fault:
        return Finding("configuration", PROBLEM, fault.message, fault.hint)
    return Finding("configuration", OK, "every setting is understood")


def _python(found: tuple[str, str] | Fault) -> Finding:
    if isinstance(found, Fault):
        return Finding("python for runs", PROBLEM, found.message, found.hint)
    return Finding("python for runs", OK, f"{found[0]} ({found[1]})")


def _home(home: Home) -> Finding:
    if home.fault:
        fix = "make it a folder that you can write to, or set MLLAUNCH_HOME to another"
        return Finding("home", PROBLEM, f"{home.path}: {home.fault}", fix)
    return Finding("home", OK, f"{home.path} can be written")


def _space(home: Home) -> Finding:
    free = f"{home.free_bytes / 2**30:.1f} GiB are free for the run log"
    if home.free_bytes < _LITTLE_BYTES:
        status = PROBLEM if home.free_bytes < _TOO_LITTLE_BYTES else WARNING
        return Finding("space", status, free, "mllaunch prune, or set MLLAUNCH_HOME to another disk")
    return Finding("space", OK, free)


def _file_system(home: Home) -> Finding:
    name = home.file_system or "an unknown file system"
    if not home.is_local:
        says = f"{home.path} lies on {name}, which other machines may share: the run log is slower there"
        return Finding("file system", WARNING, says, "set MLLAUNCH_HOME to a local disk")
    return Finding("file system", OK, f"{name}, of this machine alone")


def _run_log(found: tuple[int | None, int, tuple[str, ...]], home: str) -> Finding:
    version, ours, damage = found
    path = f"{home}/runlog.sqlite3"
    if damage:
        fix = f"keep a copy of it, then try: sqlite3 {path} .recover"
        return Finding("run log", PROBLEM, f"the run log is damaged: {'; '.join(damage)}", fix)
    if version is None:
        return Finding("run log", OK, "nothing is stored yet")
    if version > ours:
        says = f"the run log has schema {version}, this mllaunch knows {ours}"
        return Finding("run log", PROBLEM, says, "install the newer mllaunch that wrote it")
    if version < ours:
        return Finding("run log", OK, f"schema {version}, which the next command brings to {ours}")
    return Finding("run log", OK, f"sound, schema {version}")


def _code(fault: str | None) -> Finding:
    if fault:
        says = f"the store of code is damaged: {fault}"
        return Finding(
            "code", PROBLEM, says, "restore code.git from a backup; runs' repositories still have theirs"
        )
    return Finding("code", OK, "the store of code is sound")


def _agent(answer: dict[str, Any] | Fault) -> list[Finding]:
    if isinstance(answer, Fault):
        return [Finding("agent", PROBLEM, f"the agent does not start: {answer.message}", answer.hint)]
    failed = answer["failed"]
    return [
        Finding(
            "agent", OK, f"starts and answers (Python {answer['python']}, protocol {answer['protocol']})"
        ),
        _checkouts(answer["checkout"], failed.get("checkout")),
        _cgroup(answer["cgroup"]),
        _leases(answer["lease_folder"], failed.get("lease_folder")),
        *_gpus(answer["gpus"], failed.get("gpus")),
    ]


def _checkouts(method: str | None, fault: str | None) -> Finding:
    if method is None:
        return Finding(
            "checkouts", PROBLEM, f"no checkout can be made: {fault}", "mend what is named, or its rights"
        )
    return Finding("checkouts", OK, _CHECKOUTS[method])


def _cgroup(delegated: bool | None) -> Finding:
    if delegated:
        return Finding("cgroup", OK, "each run gets a cgroup of its own")
    says = "no cgroup may be made, so a run's processes are found by their tree and environment"
    return Finding("cgroup", OK, says)


def _leases(folder: str | None, fault: str | None) -> Finding:
    if folder is None:
        fix = "have the administrator mend it, or set MLLAUNCH_LEASE_DIR alike for all users of this machine"
        return Finding("GPU leases", PROBLEM, fault or "no folder for leases", fix)
    return Finding("GPU leases", OK, f"{folder} can be used")


def _gpus(found: dict[str, Any] | None, fault: str | None) -> list[Finding]:
    if found is None:
        return [Finding("GPUs", PROBLEM, f"could not be asked: {fault}", "nvidia-smi")]
    problems = [
        Finding(
            "GPUs",
            PROBLEM,
            f"{problem['what']}: {problem['why']}",
            "nvidia-smi shows whether the driver works",
        )
        for problem in found["problems"]
    ]
    if not found["found"] and not problems:
        return [Finding("GPUs", OK, "this machine has none")]
    findings = problems
    if found["found"]:
        count = len(found["found"])
        driver = f", driver {found['driver']}" if found["driver"] else ""
        if found["found"][0].get("fake"):
            driver = ", pretended by MLLAUNCH_FAKE_GPUS"
        findings = [Finding("GPUs", OK, f"{count} GPU{'s' if count > 1 else ''}{driver}"), *problems]
    return findings + [_stranger(process) for process in found["strangers"]]


def _stranger(process: dict[str, Any]) -> Finding:
    who = process["user"] or "somebody"
    says = f"{process['gpu']} is used by pid {process['pid']} of {who} without a lease: {process['command'] or '?'}"
    return Finding("GPUs", WARNING, says, f"runs wait for it; ask {who} to end pid {process['pid']}")


def _stale(facts: Facts) -> list[Finding]:
    findings = [
        Finding(
            "stale", WARNING, f"{name} has not ended, and no agent looks after it", "mllaunch ps starts one"
        )
        for name in facts.unattended
    ]
    findings += [
        Finding(
            "stale", WARNING, f"{path} is still mounted, though its run is over", f"umount {_quoted(path)}"
        )
        for path in facts.mounts
    ]
    findings += [
        Finding("stale", WARNING, f"{path} was left by a killed process", f"rm -r {_quoted(path)}")
        for path in facts.leftovers
    ]
    return findings or [Finding("stale", OK, "nothing was left behind")]


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)
