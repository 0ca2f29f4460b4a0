"""The agent's own command line: ``python -m mllaunch_agent`` and one of

supervise                        a TaskSpec on stdin
adopt FOLDER
check                            a question on stdin, see checkup.py
serve HOME                       calls on stdin, see serving.py
install FOLDER LOCK              see environments.py
enter FOLDER RANK [COMMAND...]   see entering.py
"""

from __future__ import annotations

import gc
import os
import sys

_GARBAGE = 20_000  # objects


def main() -> None:
    # Before most is imported, which makes many objects and no garbage: looking for it took a twelfth of the time.
    gc.set_threshold(_GARBAGE)
    import json

    if sys.argv[1:] == ["check"]:
        from mllaunch_agent.checkup import checkup

        sys.stdout.write(json.dumps(checkup(json.loads(sys.stdin.readline()))) + "\n")
        return
    if len(sys.argv) == 3 and sys.argv[1] == "serve":
        from mllaunch_agent.serving import serve

        serve(sys.argv[2], sys.stdin.buffer, sys.stdout.buffer)
        os._exit(0)  # taking the interpreter apart takes milliseconds, just while tasks start
    if len(sys.argv) == 4 and sys.argv[1] == "install":
        from mllaunch_agent.environments import install

        install(sys.argv[2], int(sys.argv[3]))
        return
    if len(sys.argv) >= 4 and sys.argv[1] == "enter":
        from mllaunch_agent.entering import enter

        try:
            enter(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
        except (OSError, RuntimeError) as error:
            sys.exit("error[enter]: %s" % error)
    # Imported before the specification arrives: the launcher starts this process while it still prepares. The
    # socket module is for a free port, and would otherwise be imported while the task waits for its start.
    import socket  # noqa: F401

    from mllaunch_agent import supervisor
    from mllaunch_agent.runtimes import process  # noqa: F401

    if sys.argv[1:] == ["supervise"]:
        line = sys.stdin.readline()
        if not line.endswith("\n"):
            return  # the launcher changed its mind, or died in mid-sentence
        supervisor.supervise(json.loads(line))
    elif len(sys.argv) == 3 and sys.argv[1] == "adopt":
        supervisor.adopt(sys.argv[2])
    else:
        usage = "supervise | adopt FOLDER | check | serve HOME | install FOLDER LOCK | enter FOLDER RANK [COMMAND...]"
        sys.exit("usage: mllaunch_agent " + usage)


if __name__ == "__main__":
    main()
