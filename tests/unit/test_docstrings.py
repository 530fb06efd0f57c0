"""Whatever is public says what it is for: the names of net, and what is public of their classes."""
from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any, Iterator, Tuple

import pytest

import net
import net.testing

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


def test_each_module_says_what_it_is_for():
    modules = sorted(Path(net.__file__).parent.rglob("*.py"))
    assert [path.name for path in modules
            if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize("name, found", [pytest.param(*one, id=one[0]) for one in public()])
def test_it_has_a_docstring_of_its_own(name, found):
    text = inspect.getdoc(found)
    assert text and text.strip()
    if inspect.isclass(found):
        assert found.__doc__, "it has only that of its base"
