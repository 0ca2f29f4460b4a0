"""What a submission can start before its command line is even parsed: git's look at the tree, and the agent.

Both are processes of their own, so they run while this one imports what it needs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mllaunch.schedulers.agent_process import AgentProcess

if TYPE_CHECKING:
    from mllaunch.capture.snapshot import Pending


class Early:
    """arguments: of the command."""

    def __init__(self, arguments: list[str]) -> None:
        from mllaunch.capture import snapshot
        from mllaunch.errors import MllaunchError

        # Who names a node needs none here. Where the word is the program's own, the agent just starts later.
        self.agent = None if "--node" in arguments else AgentProcess()
        self._trouble: MllaunchError | None = None
        self._pending: Pending | None = None
        try:
            self._pending = snapshot.begin(os.getcwd())
        except MllaunchError as e:
            self._trouble = e  # said when its turn comes: a usage error goes first

    def pending(self) -> Pending:
        if self._trouble is not None:
            raise self._trouble
        assert self._pending is not None
        return self._pending
