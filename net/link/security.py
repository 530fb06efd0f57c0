"""Whether connections are secured, and with what."""
from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ..settings import settings
from ..forking import forks

if TYPE_CHECKING:
    from .tls import Credentials


def credentials() -> Optional[Credentials]:
    """The credentials of this process if connections are TLS, None in open mode.

    :raises SettingError: the settings for them cannot be used; the text says what to do.
    """
    if not settings.secured:
        return None
    with forks.lock:
        # This loads OpenSSL, which open mode does not need. Connections need both modules, and find
        # them loaded.
        from . import proof, tls  # noqa: F401

        return tls.credentials()
