"""Found first on PYTHONPATH by every Python of a task: installs the hook, then gives way to the user's own."""

import sys


def _install():
    here = __file__.rpartition("/")[0]
    sys.path[:] = [path for path in sys.path if path != here]
    if sys.version_info < (3, 8):
        return
    keep_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = False  # beside our own files it is welcome
    sys.path.insert(0, here)
    try:
        import mllaunch_hook

        mllaunch_hook.install()
    except Exception:  # the user's program is not to know of us, whatever goes wrong
        pass
    finally:
        sys.path.remove(here)
        sys.dont_write_bytecode = keep_bytecode


_install()
# Import the one that would have been found without us. That there is none is what `site` expects to hear then, and
# it leaves no module of this name behind; other errors are the user's own.
_ours = sys.modules.pop("sitecustomize", None)  # Python 2 clears a module that nobody holds
import sitecustomize  # noqa: E402, F401
