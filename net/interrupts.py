"""Ctrl-C ends the program ``app-net`` without a traceback, whatever the program is doing.

Outside of its commands, while their modules are imported and while Python shuts down, Ctrl-C has
the effect that it has by default in the system. Only a command gets a KeyboardInterrupt, so that
it can end what it has begun.
"""
from __future__ import annotations

import os
import sys
import time
from _thread import get_ident, interrupt_main, start_new_thread
# The modules signal and typing take far longer to import, and may be interrupted meanwhile.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL, SIGINT, default_int_handler, getsignal, signal)
if sys.platform != "win32":
    from _signal import pthread_kill
from collections.abc import Callable

TYPE_CHECKING = False  # what typing says, without its import
if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# What an installer calls the program; an application may have a name that begins alike.
_NAMES = ("app-net", "app-net.exe", "app-net-script.py")


def is_program() -> bool:
    """Whether this process is that program rather than an application that uses the package."""
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] != "-m":
        return os.path.basename(arguments[0]) in _NAMES
    # python -m is still importing; before 3.10 it does not tell what.
    words = getattr(sys, "orig_argv", [])
    package = __name__.partition(".")[0]
    return any(pair == ("-m", package) for pair in zip(words, words[1:]))


def leave_to_system() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored, as in the background."""
    if getsignal(SIGINT) is default_int_handler:
        signal(SIGINT, SIG_DFL)


def catch(command: Callable[[], int]) -> int:
    """Run a command, in which Ctrl-C raises KeyboardInterrupt.

    :returns: its exit code, 130 if it was interrupted.
    """
    if getsignal(SIGINT) == SIG_DFL:
        signal(SIGINT, default_int_handler)
    main_thread, before = get_ident(), sys.unraisablehook

    def repeat(unraisable: UnraisableHookArgs) -> None:
        # Raised in a callback of the garbage collection or of a weak reference, it is dropped.
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            start_new_thread(_interrupt, (main_thread,))
        else:
            before(unraisable)
    sys.unraisablehook = repeat
    try:
        return command()
    except KeyboardInterrupt:
        return 130
    finally:
        leave_to_system()
        sys.unraisablehook = before


def _interrupt(main_thread: int) -> None:
    """Interrupt the main thread, once it has left the callback that it is in."""
    time.sleep(0.02)
    if sys.platform == "win32":
        interrupt_main()
    else:  # which ends a wait, too
        pthread_kill(main_thread, SIGINT)
