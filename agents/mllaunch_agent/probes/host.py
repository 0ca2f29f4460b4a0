"""Facts about the node: what it is called, what it is made of, how much of it we may use."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Tuple

from mllaunch_agent.probes import NotCaptured, cgroup, gpu, not_captured, optional_module, processes
from mllaunch_agent.probes.bounded import Bounded, Overdue

__all__ = ["facts"]

FILE_TIMEOUT_S = 2.0  # a filesystem or name service that has not answered by then is not waited for
DEAD_DISKS = 2  # after so many filesystems that do not answer, the others are left alone

# Filesystems that store nothing, or that only show something else.
_PSEUDO = (
    "autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs "
    "fuse.gvfsd-fuse fuse.lxcfs fuse.portal fusectl hugetlbfs mqueue nsfs overlay proc pstore "
    "ramfs rpc_pipefs securityfs selinuxfs squashfs sysfs tmpfs tracefs"
)
PSEUDO = frozenset(_PSEUDO.split())

# Instruction sets that change the numbers a CPU computes, or how fast it does.
_FLAGS = (
    "sse4_2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 "
    "avx_vnni amx_tile amx_bf16 amx_int8 asimd asimdhp bf16 i8mm sve sve2"
)
FLAGS = frozenset(_FLAGS.split())

# What the firmware calls itself -> the kind of virtual machine. Names as in systemd-detect-virt(1).
FIRMWARE = (
    ("KVM", "kvm"),
    ("QEMU", "kvm"),
    ("Google Compute Engine", "kvm"),
    ("Amazon EC2", "kvm"),
    ("OpenStack", "kvm"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("Microsoft Corporation Virtual Machine", "hyperv"),
    ("Xen", "xen"),
)


def facts(import_path: List[str]) -> Tuple[Dict[str, Any], List[NotCaptured]]:
    """What there is to know about this node. Never raises and never hangs: what does not answer is left out
    by name.

    hostname, addresses (without loopback and link-local), os, kernel, arch, cpu {model, cores: physical,
    threads, flags}, memory_bytes (of the machine), memory_limit_bytes and cpu_limit (CPUs; of this process's
    cgroups and affinity, None: no limit), boot_id, disks [{mount, size_bytes, free_bytes, fs}] (free: to an
    ordinary user), virtualization {kind} or None, user, python_version (the agent's), gpus [{index, uuid,
    name, memory_bytes}] or None when there is none, driver, cuda. import_path: where psutil and pynvml may
    be found.
    """
    psutil = optional_module("psutil", import_path)
    missing: List[NotCaptured] = []
    mounts = cgroup.parse_mountinfo(_text("/proc/self/mountinfo") or "")
    cpu = parse_cpuinfo(_text("/proc/cpuinfo") or "")
    cpu["threads"] = os.cpu_count()
    memory_bytes = parse_meminfo(_text("/proc/meminfo") or "").get("MemTotal")
    memory_limit, cpu_limit = cgroup.limits(mounts, _text("/proc/self/cgroup") or "", _text)
    found = {
        "hostname": os.uname().nodename,
        "addresses": _attempt("addresses", missing, lambda: _addresses(psutil)),
        "os": parse_os_release(_text("/etc/os-release") or _text("/usr/lib/os-release") or ""),
        "kernel": os.uname().release,
        "arch": os.uname().machine,
        "cpu": cpu,
        "memory_bytes": memory_bytes,
        "memory_limit_bytes": memory_limit if memory_limit and memory_limit < (memory_bytes or 0) else None,
        "cpu_limit": _cpu_limit(cpu_limit),
        "boot_id": (_text("/proc/sys/kernel/random/boot_id") or "").strip() or None,
        "disks": _attempt("disks", missing, lambda: _disks(psutil, mounts, missing)),
        "virtualization": _virtualization(mounts),
        "user": _attempt(
            "user", missing, lambda: Bounded(FILE_TIMEOUT_S).call(lambda: processes.user_name(os.getuid()))
        ),
        "python_version": "%d.%d.%d" % sys.version_info[:3],
    }
    found.update(_gpu_facts(import_path, missing))
    missing.extend(not_captured(name, "not found on this system") for name in _unknown(found, missing))
    return found, missing


def _unknown(found: Mapping[str, Any], missing: List[NotCaptured]) -> List[str]:
    """Names of facts that every machine has and that are None here without a reason given yet."""
    named = {entry["what"] for entry in missing}
    unknown = [name for name in ("os", "memory_bytes", "boot_id") if found[name] is None]
    unknown += ["cpu." + name for name in ("model", "cores") if found["cpu"][name] is None]
    return [name for name in unknown if name not in named]


def _attempt(what: str, missing: List[NotCaptured], probe: Callable[[], Any]) -> Any:
    """What the probe finds; None, and the reason in ``missing``, if it fails in whatever way."""
    try:
        return probe()
    except Exception as error:  # noqa: BLE001  a fact less must not cost the others
        missing.append(not_captured(what, error))
        return None


def _gpu_facts(import_path: List[str], missing: List[NotCaptured]) -> Dict[str, Any]:
    """gpus, driver and cuda; gpus is None when there is none, also where a driver waits for a card."""
    gpus = gpu.Gpus(import_path)
    found = {"gpus": gpus.list() or None, **gpus.versions()}
    missing.extend(gpus.not_captured())
    gpus.close()
    return found


def _addresses(psutil: Any) -> List[str]:
    if psutil is not None:
        all_of_them = {
            entry.address.partition("%")[0]
            for entries in psutil.net_if_addrs().values()
            for entry in entries
            if entry.family.name in ("AF_INET", "AF_INET6")
        }
    else:
        all_of_them = parse_fib_trie(_text("/proc/net/fib_trie") or "") | parse_if_inet6(
            _text("/proc/net/if_inet6") or ""
        )
    return sorted(
        address
        for address in all_of_them
        if not address.startswith(("127.", "169.254.", "fe80:")) and address != "::1"
    )


def parse_fib_trie(text: str) -> Set[str]:
    """The node's own IPv4 addresses out of /proc/net/fib_trie: each stands above a line ``/32 host
    LOCAL``."""
    own = set()
    address = ""
    for line in text.splitlines():
        fields = line.split() or [""]
        if fields[0].endswith("--"):
            address = fields[1]
        elif fields[0:3] == ["/32", "host", "LOCAL"]:
            own.add(address)
    return own


def parse_if_inet6(text: str) -> Set[str]:
    """The IPv6 addresses in /proc/net/if_inet6, in their usual short form."""
    import socket

    lines = [line.split() for line in text.splitlines()]
    return {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[0])) for fields in lines if fields}


def parse_os_release(text: str) -> Optional[str]:
    """PRETTY_NAME of os-release(5), or its NAME."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        values[name.strip()] = value.strip().strip("\"'")
    return values.get("PRETTY_NAME") or values.get("NAME")


def parse_meminfo(text: str) -> Dict[str, int]:
    """/proc/meminfo in bytes."""
    amounts = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if len(fields) == 2 and fields[1] == "kB":
            amounts[name] = int(fields[0]) * 1024
    return amounts


def parse_cpuinfo(text: str) -> Dict[str, Any]:
    """{"model", "cores", "flags"} out of /proc/cpuinfo; cores are physical, None where the architecture does
    not say."""
    cores = set()
    flags: Set[str] = set()
    model = implementer = None
    for block in text.split("\n\n"):
        values = {}
        for line in block.splitlines():
            name, _, value = line.partition(":")
            values[name.strip()] = value.strip()
        model = model or values.get("model name") or values.get("cpu model") or values.get("Model")
        if "core id" in values:
            cores.add((values.get("physical id"), values["core id"]))
        if "CPU implementer" in values:  # arm64 has numbers for names
            implementer = "implementer %s part %s" % (values["CPU implementer"], values.get("CPU part"))
        flags = flags or set(FLAGS) & set((values.get("flags") or values.get("Features") or "").split())
    return {
        "model": model or implementer,
        "cores": len(cores) or _cores_by_siblings(),
        "flags": sorted(flags),
    }


def _cores_by_siblings() -> Optional[int]:
    """Physical cores by sysfs, for architectures whose /proc/cpuinfo does not tell."""
    base = "/sys/devices/system/cpu"
    siblings = {
        _text("%s/cpu%d/topology/thread_siblings_list" % (base, n)) for n in range(os.cpu_count() or 0)
    }
    return len(siblings - {None}) or None


def _cpu_limit(quota: Optional[float]) -> Optional[float]:
    """The tighter of quota and affinity, in CPUs; None when all of the machine may be used."""
    total = os.cpu_count() or 0
    allowed = min(len(os.sched_getaffinity(0)), quota or total)
    return float(allowed) if allowed < total else None


def _disks(psutil: Any, mounts: List[cgroup.Mount], missing: List[NotCaptured]) -> List[Dict[str, Any]]:
    if psutil is not None:
        places = [(each.device, each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]
    else:
        places = [(each.source, each.point, each.fs) for each in mounts]
    disks = []
    silent = 0
    waiter = Bounded(FILE_TIMEOUT_S)
    for mount, fs in choose_disks(places):
        try:
            state = waiter.call(lambda mount=mount: os.statvfs(mount))  # type: ignore[misc]
        except Overdue as error:
            missing.append(not_captured("disk %s" % mount, error))
            silent += 1
            waiter = Bounded(FILE_TIMEOUT_S)
            if silent == DEAD_DISKS:
                break
            continue
        except OSError:
            continue  # not for us to look at
        if state.f_blocks:
            size_bytes, free_bytes = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
            disks.append({"mount": mount, "size_bytes": size_bytes, "free_bytes": free_bytes, "fs": fs})
    waiter.close()
    return disks


def choose_disks(places: List[Tuple[str, str, str]]) -> List[Tuple[str, str]]:
    """(mount, fs) of what stores data, out of (source, mount, fs): each source once, at its shortest path.

    The root counts whatever it is: in a container it is an overlay.
    """
    chosen: Dict[Tuple[str, str], str] = {}
    for source, mount, fs in places:
        if fs in PSEUDO and mount != "/":
            continue
        known = chosen.get((source, fs))
        if known is None or len(mount) < len(known):
            chosen[source, fs] = mount
    return sorted((mount, fs) for (_, fs), mount in chosen.items())


def _virtualization(mounts: List[cgroup.Mount]) -> Optional[Dict[str, str]]:
    kind = container_kind(os.environ, os.path.exists, _text("/proc/1/cgroup") or "") or _machine_kind()
    return None if kind is None else {"kind": kind}


def container_kind(
    environ: Mapping[str, str], exists: Callable[[str], bool], init_cgroup: str
) -> Optional[str]:
    """Which container runtime this runs in, judged by what each leaves behind; None: none."""
    if exists("/run/.containerenv"):
        return "podman"
    if "APPTAINER_NAME" in environ or "SINGULARITY_NAME" in environ:
        return "apptainer"
    if "KUBERNETES_SERVICE_HOST" in environ or "kubepods" in init_cgroup:
        return "kubernetes"
    if exists("/.dockerenv") or "/docker" in init_cgroup:
        return "docker"
    return environ.get("container") or ("lxc" if "/lxc" in init_cgroup else None)


def _machine_kind() -> Optional[str]:
    dmi = "/sys/class/dmi/id/"
    firmware = "%s %s" % (
        (_text(dmi + "sys_vendor") or "").strip(),
        (_text(dmi + "product_name") or "").strip(),
    )
    clock = _text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or ""
    return machine_kind(firmware, clock.strip(), "hypervisor" in (_text("/proc/cpuinfo") or "").split())


def machine_kind(firmware: str, clock: str, has_hypervisor: bool) -> Optional[str]:
    """Which kind of virtual machine this is; "vm" when it is one of an unknown kind, None on bare metal."""
    for name, kind in FIRMWARE:
        if name in firmware and has_hypervisor:  # Amazon's and Google's bare metal has their name, too
            return kind
    by_clock = {"kvm-clock": "kvm", "xen": "xen", "hyperv_clocksource_tsc_page": "hyperv"}
    return by_clock.get(clock) or ("vm" if has_hypervisor else None)


def _text(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None
