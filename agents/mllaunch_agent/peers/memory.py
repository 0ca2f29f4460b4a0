"""What an agent that takes over from the first one must know: peers.json in the attempt's folder."""

from __future__ import annotations

import json
import os
from typing import Dict, List, NamedTuple, Optional, Tuple

from mllaunch_agent import node, system
from mllaunch_agent.peers.interface import Verdict

__all__ = ["Known", "Memory", "recall", "remember"]


class Known(NamedTuple):
    """What the first node knows of another."""

    node: str
    queue: str
    address: str  # of the first node, as it was reached from there


class Memory(NamedTuple):
    """known: by rank. ended: ranks whose tasks are over. go, verdict: as in Peers; others may have been told."""

    known: Dict[int, Known]
    ended: List[int]
    go: Optional[Tuple[str, int]]
    verdict: Optional[Verdict]


def recall(folder: str) -> Memory:
    found = node.read_json(_path(folder))
    if found is None:
        return Memory({}, [], None, None)
    return Memory(
        {int(rank): Known(*known) for rank, known in found["known"].items()},
        found["ended"],
        found["go"] and (found["go"][0], found["go"][1]),
        found["verdict"] and Verdict(*found["verdict"]),
    )


def remember(folder: str, memory: Memory) -> None:
    """What others are told next is on the disk then; unless that is full, when they must hear of it all the same."""
    try:
        is_decided = memory.go is not None or memory.verdict is not None
        system.write_atomic(_path(folder), json.dumps(memory._asdict()).encode("ascii"), durable=is_decided)
    except OSError:
        pass


def _path(folder: str) -> str:
    return os.path.join(folder, "peers.json")
