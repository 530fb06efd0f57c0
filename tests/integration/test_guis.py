"""Event handlers and served functions that touch widgets, in the main thread of a GUI."""
from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from typing import Dict, Iterator

import pytest

from processes import run_python

# What both have in common: events come from another thread, and a peer, which is this one, calls.
APPLICATION = """
import sys, threading
import net

@net.event("progress")
def report(percent):
    return (percent,), {}

def act():
    for percent in range(0, 101, 10):
        report(percent)
    named = net.remote("set title").on(net.Peer().id, timeout=30)("as asked for")
    report(1000 if named == "is as asked for" else -1)

def begin():
    threading.Thread(target=act, daemon=True).start()

shown = []
me = threading.get_ident()
"""

QT = APPLICATION + """
from PySide6 import QtCore, QtWidgets

app = QtWidgets.QApplication([])
bar = QtWidgets.QProgressBar()
bar.show()

@net.connect("set title", executor=net.main_thread)
def set_title(text):
    bar.setWindowTitle(text)
    return "is " + bar.windowTitle()

@net.subscribe("progress", net.Peer().id, executor=net.main_thread)
def show(percent):
    assert threading.get_ident() == me
    if percent > 100:
        app.quit()
        return
    bar.setValue(percent)
    shown.append(bar.value())

timer = QtCore.QTimer()
timer.timeout.connect(net.main_thread.run_pending)
timer.start(5)
begin()
app.exec()
print(shown, bar.windowTitle())
"""

TK = APPLICATION + """
import tkinter

root = tkinter.Tk()
label = tkinter.Label(root)
label.pack()

@net.connect("set title", executor=net.main_thread)
def set_title(text):
    root.title(text)
    return "is " + root.title()

@net.subscribe("progress", net.Peer().id, executor=net.main_thread)
def show(percent):
    assert threading.get_ident() == me
    if percent > 100:
        root.quit()
        return
    label["text"] = percent
    shown.append(int(label["text"]))

def poll():
    net.main_thread.run_pending()
    root.after(5, poll)

poll()
begin()
root.mainloop()
print(shown, root.title())
"""

EXPECTED = f"{list(range(0, 101, 10))} as asked for\n"


def play(script: str, port_range: range, **settings: str) -> None:
    done = run_python("-c", script, timeout=60, NET_PORT_START=port_range.start, **settings)
    assert done.stdout == EXPECTED
    # Qt and Tk complain of what another thread does to them.
    assert done.stderr == ""


def test_handlers_of_events_update_the_widgets_of_qt(port_range):
    if importlib.util.find_spec("PySide6") is None:
        pytest.skip("needs PySide6")
    play(QT, port_range, QT_QPA_PLATFORM="offscreen")


@pytest.fixture
def display() -> Iterator[Dict[str, str]]:
    """A display that nobody sees, as an environment."""
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("needs tkinter")
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("needs Xvfb")
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [server, "-displayfd", str(writer), "-screen", "0", "640x480x24", "-nolisten", "tcp"],
        pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with os.fdopen(reader) as said:
            number = said.readline().strip()
        assert number, "Xvfb did not start"
        yield {"DISPLAY": f":{number}"}
    finally:
        process.terminate()
        process.wait()


def test_handlers_of_events_update_the_widgets_of_tk(port_range, display):
    play(TK, port_range, **display)
