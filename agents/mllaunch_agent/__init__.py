"""What runs on a node: it starts the user's tasks, watches them, and records what happened.

Standard library only, Python 3.8 or newer. Nothing here may stop, slow or change the user's program.
"""

__version__ = "0.1.0"

PROTOCOL_VERSION = 1  # of what protocol.py describes; here, because a launcher needs to know just this
