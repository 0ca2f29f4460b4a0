"""Which nodes a run goes to; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mllaunch.domain.causes import Problem, together
from mllaunch.domain.job import Resources
from mllaunch.domain.sizes import shown
from mllaunch.errors import NotFound, Unreachable, UsageError

_LISTED = 20


class Offer(NamedTuple):
    """What a node has. gpus: all of them; free: those that nobody uses now; waiting: runs that wait for some there.

    problem: why it cannot be asked, or None; then the numbers mean nothing. lack: what else it has not got, in words.
    host: by which the problem may name it, too.
    """

    node: str
    gpus: int = 0
    free: int = 0
    waiting: int = 0
    cpus: int = 0
    memory_bytes: int = 0
    load: float = 0.0
    problem: str | None = None
    lack: str | None = None
    host: str | None = None


class Known(Protocol):
    """A node of the configuration. labels: (name, value) pairs."""

    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[tuple[str, str], ...]: ...


class Wish(NamedTuple):
    """The nodes that may serve; none are all. exactly: all of them are meant, in the order of ranks. preferred: nodes
    to take first, in this order, as far as they can begin at once."""

    names: tuple[str, ...] = ()
    exactly: bool = False
    preferred: tuple[str, ...] = ()


def meant(word: str, nodes: Sequence[Known]) -> list[str]:
    """The nodes that a word means: a node's name, a group's, or LABEL=VALUE. NotFound if there is none."""
    label, _, value = word.partition("=")
    found = [n.name for n in nodes if word in (n.name, *n.groups) or (label, value) in n.labels]
    if not found:
        groups = sorted({group for n in nodes for group in n.groups})
        labels = sorted({f"{label}={value}" for n in nodes for label, value in n.labels})
        raise unknown(word, [n.name for n in nodes], groups, labels)
    return found


def unknown(
    word: str, names: Sequence[str], groups: Sequence[str] = (), labels: Sequence[str] = ()
) -> NotFound:
    """What to raise where a word means no node, with what there is."""
    import difflib

    there = "the configuration has " + (_listed(names) or "none")
    for kind, words in (("group", groups), ("label", labels)):
        there += f", the {kind}{'s' if len(words) > 1 else ''} {_listed(words)}" if words else ""
    near = difflib.get_close_matches(word, [*names, *groups, *labels], 1)
    return NotFound(
        "node",
        f"there is no node {word or 'without a name'}; {there}",
        hint=(f"did you mean {near[0]}? " if near else "") + "mllaunch nodes",
    )


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def wish(words: Sequence[str], nodes: Sequence[Known]) -> Wish:
    """What the user's ``--node`` options mean together: just these nodes, or any of these groups and labels.

    Raises NotFound, and UsageError where a node is named twice, or both are named: which nodes were meant would be a
    guess.
    """
    found = [meant(word, nodes) for word in words]
    names = {n.name for n in nodes}
    single = [word for word in words if word in names]
    twice = next((word for word in single if single.count(word) > 1), None)
    if twice is not None:
        raise UsageError("node", f"--node {twice}: it is named twice")
    if len(single) == len(words):
        return Wish(tuple(words), exactly=bool(words))
    if single:
        other = next(word for word in words if word not in names)
        raise UsageError("node", f"--node {single[0]} is a node, but --node {other} means any of several")
    among = {name for some in found for name in some}
    return Wish(tuple(n.name for n in nodes if n.name in among))


def check_count(count: int, wanted: Wish, configured: int) -> None:
    """Raises UsageError where so many nodes cannot be had, whatever each has. configured: how many there are."""
    if wanted.exactly and count != len(wanted.names):
        raise UsageError("nodes", f"--nodes {count}, but --node names {_nodes(len(wanted.names))}")
    have = len(wanted.names) or configured
    if count > have:
        where = "--node means" if wanted.names else "the configuration has"
        raise UsageError(
            "placement", f"{_nodes(count)} are wanted, and {where} {have}", hint="mllaunch nodes"
        )


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count != 1 else ''}"


def choose(
    wanted: Resources, offers: Sequence[Offer], *, named: bool, preferred: Sequence[str] = ()
) -> list[str]:
    """The nodes for a run, as many as it wants. named: the user named the nodes, in the order of ranks. preferred:
    nodes that are taken first, in this order, as far as they can begin at once.

    Raises UsageError where no choice of nodes could ever serve, Unreachable where a node that would
    be needed cannot be asked.
    """
    count = wanted.nodes
    lacking = [(offer, _lack(wanted, offer)) for offer in offers]
    able = [offer for offer, lack in lacking if lack is None]
    if len(able) < count:
        problems = [_problem(offer, lack) for offer, lack in lacking if lack is not None]
        evidence = tuple(cause.words for cause in together(problems))
        silent = [offer for offer in offers if offer.problem is not None]
        what = f"{_nodes(count)} with {_words(wanted)}"
        have = f"{len(able)} of {len(offers)} can serve"
        if silent and len(able) + len(silent) >= count:
            raise Unreachable(
                "unreachable",
                f"{what}: {have}, and {len(silent)} cannot be asked",
                evidence=evidence,
                hint="mllaunch nodes",
            )
        raise UsageError("placement", f"{what}: {have}", evidence=evidence, hint="mllaunch nodes")
    if not named:
        able.sort(key=lambda offer: _wait(wanted, offer))  # stable: else the order of the configuration
        able.sort(key=lambda offer: _rank(wanted, offer, preferred))
    return [offer.node for offer in able[:count]]


def _problem(offer: Offer, lack: str) -> Problem:
    """What speaks of the node by its name need not have it before."""
    names_it = offer.problem is not None and offer.node in offer.problem
    return Problem(offer.node, offer.host, lack if names_it else f"{offer.node}: {lack}")


def _lack(wanted: Resources, offer: Offer) -> str | None:
    """What a node could never give, or why it cannot be asked."""
    if offer.problem is not None:
        return offer.problem
    if offer.lack is not None:
        return offer.lack
    if wanted.gpus > offer.gpus:
        return f"it has {offer.gpus} GPU{'s' if offer.gpus != 1 else ''}"
    if wanted.cpus is not None and wanted.cpus > offer.cpus:
        return f"it has {offer.cpus} CPUs"
    if wanted.memory_bytes is not None and wanted.memory_bytes > offer.memory_bytes:
        return f"it has {shown(offer.memory_bytes)} of memory"
    return None


def _begins(wanted: Resources, offer: Offer) -> bool:
    return not wanted.gpus or (offer.free >= wanted.gpus and not offer.waiting)


def _rank(wanted: Resources, offer: Offer, preferred: Sequence[str]) -> int:
    if offer.node not in preferred or not _begins(wanted, offer):
        return len(preferred)
    return preferred.index(offer.node)


def _wait(wanted: Resources, offer: Offer) -> tuple[object, ...]:
    """Sorts nodes: first those that can begin at once, fullest first so that room for large runs is left; then the
    shortest queue. Runs without GPUs go where there is least to do."""
    if not wanted.gpus:
        return (offer.load / max(1, offer.cpus),)
    begins = _begins(wanted, offer)
    return (not begins, offer.waiting, offer.free if begins else -offer.free)


def _words(wanted: Resources) -> str:
    parts = [f"{wanted.gpus} GPU{'s' if wanted.gpus != 1 else ''}" if wanted.gpus else ""]
    parts.append(f"{wanted.cpus} CPUs" if wanted.cpus else "")
    parts.append(f"{shown(wanted.memory_bytes)} of memory" if wanted.memory_bytes else "")
    return ", ".join(filter(None, parts)) or "anything"
