"""A COMMAND THAT ENDS WITH WHOEVER STARTED IT, whatever that died of. Standard library only.

    python -I guard.py COMMAND ARGUMENT…   run as the leader of a process group of its own

The starter holds the other end of standard input. Once that is closed, by intent or because the
starter was killed, the whole group is asked to end, and made to after GRACE_S seconds. When the
command has ended by itself, what it has left of the group is ended, too.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

GRACE_S = 10.0
_LOOK_S = 0.2


def guard(command: Sequence[str]) -> None:
    """Run a command until it ends or standard input does; then end the group, this process too."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    # Not before the child was started: it would inherit the deafness.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while child.poll() is None:
        # Nobody writes: it becomes readable when it's closed.
        if select.select([sys.stdin], [], [], _LOOK_S)[0]:
            break
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    guard(sys.argv[1:])
