"""The examples of the README and of the documentation, run as they are printed.

Blocks of ``python`` are the application: two processes run them. Blocks of ``pycon`` are sessions:
one of the two runs them, and finds the other. Pages whose examples
need more than this have tests of their own and are listed as such.
"""
from __future__ import annotations

import pytest
from pages import ROOT, blocks
from processes import run_python

#: Pages that are run here.
PAGES = ["README.rst", "docs/index.rst", "docs/usage.rst", "docs/logging.rst",
         "docs/applications.rst", "docs/webservers.rst", "docs/asyncio.rst", "docs/streams.rst",
         "docs/objects.rst", "docs/many.rst", "docs/cancelling.rst", "docs/files.rst",
         "docs/long-jobs.rst"]
#: Pages with python examples that other tests run.
ELSEWHERE = {"docs/main-thread.rst", "docs/events.rst", "docs/discovery.rst", "docs/security.rst",
             "docs/reliability.rst", "docs/performance.rst",
             # as files and terminals: test_terminals
             "docs/tutorial.rst", "docs/security-start.rst", "docs/troubleshooting.rst",
             "docs/fastapi.rst",
             # with what other tools need: test_other_tools
             "docs/coming-from.rst", "docs/jupyter.rst"}

#: Ends the script of a process that runs sessions.
SESSION = """
import doctest, sys
_test = doctest.DocTestParser().get_doctest({session!r}, globals(), {page!r}, {page!r}, 0)
_result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(_test, clear_globs=False)
print("attempted", _result.attempted)
sys.exit(_result.failed)
"""


def texts(page: str, kind: str) -> list[str]:
    return [block.text for block in blocks(page) if block.kind == kind]


def test_every_page_with_examples_is_known():
    pages = ["README.rst", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.rst"))]
    with_examples = {page for page in pages if texts(page, "python") or texts(page, "pycon")}
    assert with_examples <= set(PAGES) | ELSEWHERE
    assert set(PAGES) <= with_examples


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run_as_printed(page, peer_process, port_range, tmp_path):
    application = "\n".join(texts(page, "python"))
    session = "\n".join(texts(page, "pycon"))
    peer_process(application)
    script = tmp_path / "application.py"  # as PeerProcess calls it: the same program
    script.write_text(application + SESSION.format(session=session, page=page), encoding="utf-8")
    done = run_python(str(script), NET_PORT_START=port_range.start)
    assert f"attempted {session.count('>>> ')}" in done.stdout
