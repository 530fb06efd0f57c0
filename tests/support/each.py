"""Many small cases as one test: a test of its own for each costs more than the case itself."""
from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, Iterable, Optional, Sequence, Union

#: Names the case in the message of a failure.
Name = Callable[[Any], Optional[str]]


def each(names: str, cases: Iterable[Any], ids: Union[Name, Sequence[str], None] = None) -> Any:
    """As ``pytest.mark.parametrize``, but all cases are one test, which goes on after a failure.

    The test takes fixtures as usual, made once for all cases. What changes with a case, such as
    what monkeypatch sets, is for parametrize.

    :param ids: names for the failed ones, or what makes them; their values by default.
    """
    split = [name.strip() for name in names.split(",")]
    rows = [tuple(case) if len(split) > 1 else (case,) for case in cases]
    # A list that has become empty by mistake proves nothing.
    assert rows and all(len(row) == len(split) for row in rows)

    def name_of(place: int) -> str:
        if ids is not None and not callable(ids):
            return ids[place]
        make = ids or repr
        return ", ".join(f"{make(value) or value!r:.80}"[:80] for value in rows[place])

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            failed, first = [], None
            for place, row in enumerate(rows):
                try:
                    test(*args, **dict(zip(split, row)), **kwargs)
                except Exception as problem:
                    first = first or problem
                    failed.append(name_of(place))
            if first is not None:
                raise AssertionError(f"{len(failed)} of {len(rows)} cases: "
                                     + "; ".join(failed[:10])) from first

        signature = inspect.signature(test)
        run.__signature__ = signature.replace(parameters=[  # type: ignore[attr-defined]
            one for name, one in signature.parameters.items() if name not in split])
        return run

    return decorate
