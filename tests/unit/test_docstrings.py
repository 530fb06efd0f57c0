"""Whatever is public says what it is for: the names of net, and what is public of their classes."""
from __future__ import annotations

import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any, Iterator, Tuple

import net
import net.testing
from each import each

PAGES = Path(__file__).resolve().parents[2] / "docs"


def public() -> Iterator[Tuple[str, Any]]:
    """Each documented name and what it stands for; of classes, their members too."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.rst")))
    named = re.findall(r"^\.\. (?:auto)?(?:function|class|exception):: ([\w.]+)", text, re.M)
    named += [f"net.{one}" for one in net.__all__ if not one.isupper()]
    named += [f"net.testing.{one}" for one in net.testing.__all__]
    for name in sorted(set(named)):
        found = pkgutil.resolve_name(name)
        if inspect.isroutine(found) or inspect.isclass(found):
            yield name, found
        if inspect.isclass(found) and found.__module__.startswith("net"):
            for member, value in vars(found).items():
                if not member.startswith("_") and (
                        inspect.isroutine(value) or isinstance(value, property)):
                    yield f"{name}.{member}", getattr(found, member)


PUBLIC = dict(public())


@each("name", PUBLIC)
def test_it_has_a_docstring_of_its_own(name):
    found = PUBLIC[name]
    text = inspect.getdoc(found)
    assert text and text.strip()
    if inspect.isclass(found):
        assert found.__doc__, "it has only that of its base"
