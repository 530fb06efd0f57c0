"""The examples of the README and of the documentation, run as they are printed.

Blocks of ``python`` are the application: two processes run them. Blocks of ``pycon`` are sessions:
one of the two runs them, and finds the other. Pages whose examples
need more than this have tests of their own and are listed as such.
"""
from __future__ import annotations

import configparser
import json
import re
import signal
from pathlib import Path

import pytest
from net.cli import COMMANDS, _Parser
from pages import ROOT, blocks
from processes import run_python

#: Pages that are run here.
PAGES = ["README.rst", "docs/index.rst", "docs/usage.rst", "docs/logging.rst",
         "docs/applications.rst", "docs/webservers.rst", "docs/asyncio.rst", "docs/streams.rst",
         "docs/objects.rst", "docs/many.rst", "docs/cancelling.rst", "docs/files.rst",
         "docs/long-jobs.rst", "docs/main-thread.rst", "docs/security.rst",
         "docs/metrics.rst"]
#: The tests that run the examples of the pages that need more: files and terminals, other tools.
ELSEWHERE = {
    **dict.fromkeys(["docs/tutorial.rst", "docs/security-start.rst", "docs/troubleshooting.rst",
                     "docs/fastapi.rst"], "test_terminals.py"),
    **dict.fromkeys(["docs/coming-from.rst", "docs/jupyter.rst"], "test_other_tools.py"),
    "docs/events.rst": "test_events_examples.py", "docs/discovery.rst": "test_discovery.py",
    "docs/serving.rst": "test_documents.py", "docs/testing.rst": "test_testing.py"}

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


def test_every_page_with_examples_is_run():
    pages = ["README.rst", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.rst"))]
    written = {page: (ROOT / page).read_text(encoding="utf-8").count("code-block:: py")
               for page in pages}
    # None is indented otherwise, and so not seen.
    assert written == {page: len(texts(page, "python") + texts(page, "pycon")) for page in pages}
    assert {page for page in pages if written[page]} == {*PAGES, *ELSEWHERE}
    for page, file in ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert Path(page).name in text, f"{file} runs nothing of {page}"


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run_as_printed(page, peer_process, port_range, tmp_path):
    application = "\n".join(texts(page, "python"))
    session = "\n".join(texts(page, "pycon"))
    peer_process(application)
    script = tmp_path / "application.py"  # as PeerProcess calls it: the same program
    script.write_text(application + SESSION.format(session=session, page=page), encoding="utf-8")
    done = run_python(str(script), NET_PORT_START=port_range.start)
    assert f"attempted {session.count('>>> ')}" in done.stdout


MAIN_THREAD = """
class Root:
    def after(self, milliseconds, function, argument):
        self.next = (function, argument)


class Timer:
    def __init__(self):
        self.timeout = self

    def connect(self, function):
        self.run = function

    def start(self, milliseconds):
        pass


def run(turn):
    call = set_title.start("text", peer=net.Peer().id)
    while not call.done():
        turn()
    return call.result()


root = Root()
poll(root)
timer = start_timer(Timer)
print(run(lambda: root.next[0](root.next[1])), run(timer.run), titles)
"""


def test_the_timers_of_the_page_on_the_main_thread_do_its_work():
    done = run_python("-c", "\n".join(texts("docs/main-thread.rst", "python")) + MAIN_THREAD)
    assert done.stdout == "True True ['text', 'text']\n"


SERVING = """
import os, signal, threading, time

def end():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    print(net.Peer().launched, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end).start()
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no such signals here")
def test_the_programs_of_the_page_on_serving_serve_and_end(tmp_path):
    one, other = texts("docs/serving.rst", "python")
    script = tmp_path / "program.py"
    script.write_text(SERVING + one + other + "print(peer.launched, render('x'))\n")
    assert run_python(str(script)).stdout == "True\nFalse x rendered\n"


def seconds(text):
    return float(text.strip('"'))


def test_the_files_of_the_page_on_serving_are_what_they_are_for():
    unit, program = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    unit.optionxform = program.optionxform = str  # type: ignore[assignment,method-assign]
    ini = texts("docs/serving.rst", "ini")
    # The settings of a unit may come several times.
    service = re.sub(r"^Environment=NET_(?!GRACE).*\n", "", ini[0], flags=re.M)
    unit.read_string(service)
    program.read_string(ini[1])
    served = "app-net serve studio"
    assert unit["Service"]["ExecStart"].endswith(served)
    assert seconds(unit["Service"]["TimeoutStopSec"]) \
        > seconds(unit["Service"]["Environment"].partition("NET_GRACE=")[2])
    supervised = program["program:studio"]
    assert supervised["command"].endswith(served) and supervised["stopsignal"] == "TERM"
    grace = re.search(r'NET_GRACE=("\d+")', supervised["environment"])
    assert grace and seconds(supervised["stopwaitsecs"]) > seconds(grace.group(1))
    docker, = texts("docs/serving.rst", "docker")
    command = json.loads(docker.rpartition("CMD ")[2])  # a list, so that signals reach it
    assert " ".join(command) == served
    assert seconds(docker.partition("NET_GRACE=")[2].split()[0]) < 10


def test_the_probe_of_the_page_on_serving_is_a_command_of_ours():
    yaml = pytest.importorskip("yaml")
    deployment, = yaml.safe_load_all(*texts("docs/serving.rst", "yaml"))
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    studio, = template["spec"]["containers"]
    settings = {one["name"]: one.get("value") for one in studio["env"]}
    assert template["spec"]["terminationGracePeriodSeconds"] > seconds(settings["NET_GRACE"])
    assert " ".join(studio["command"]) == "app-net serve studio"
    probe = studio["readinessProbe"]
    shell, option, line = probe["exec"]["command"]
    assert (shell, option) == ("sh", "-c") and "POD_IP" in settings
    words = line.split()
    assert words[:3] == ["app-net", "ping", "$POD_IP:3010"] and probe["timeoutSeconds"] > 2
    options = _Parser("ping", COMMANDS["ping"]).parse_intermixed_args(words[2:])
    assert (options.count, options.timeout) == (1, 2.0)
