"""Time zones by name, and only by names that are known here.

Looking for any other name could lead to any file, and imports modules of the package tzdata.
"""
from __future__ import annotations

import datetime
from typing import Any, FrozenSet

from ..identity import printable
from .checks import Lacking
from .memo import Memo


def check_name(name: str) -> None:
    """Refuse a name that this process does not know.

    :raises Lacking: it is not known here.
    """
    import zoneinfo  # takes 10 ms, which only programs that send one need

    if name not in _names[zoneinfo.TZPATH]:
        raise Lacking(f"the time zone {printable(name, 100)!r} arrived, but is not known",
                      "; the package tzdata has all of them")


def named(name: str) -> datetime.tzinfo:
    """The zone of a name.

    :raises Lacking: it is not known here.
    """
    zone: datetime.tzinfo = _kept[name]
    return zone


def _load(name: str) -> datetime.tzinfo:
    check_name(name)
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


def _find_names(path: Any) -> FrozenSet[str]:
    import zoneinfo

    return frozenset(zoneinfo.available_timezones())


#: The folders that time zones are looked for in -> the names of those that this process has.
_names = Memo(_find_names, 4)
#: The time zones that have come, by name. Python forgets one that nothing holds, and loading it
#: again takes 0.1 ms, a hundred times as long as reading its name.
_kept = Memo(_load, 1000)
