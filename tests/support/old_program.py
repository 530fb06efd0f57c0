"""An old program: what 0.3, 0.4 or 0.6 does on the wire, written from recorded bytes.

It runs by itself, on Python 2.7, 3.6 and all later ones, and knows nothing of app-net::

    python old_program.py 0.4 127.0.0.1 3010

It says ``ready`` with its port, then takes one JSON array for each line of its input, a command and
its arguments, and answers with one line of JSON. Like the real ones it opens a connection for each
request, receives once, 1,024 bytes, answers with one piece, and closes.
"""
from __future__ import print_function

import base64
import json
import socket
import sys
import threading
import time
import traceback

LIMIT = 1024  # bytes
HANDLERS = "net.defaults.handlers."
FLAGS = ["INVALID_CONNECTION", "NULL", "BUSY"]
NEEDED = ("tag", "host", "port", "hub", "connections", "subscriptions", "flags")  # of 0.6's search
PY3 = sys.version_info[0] > 2
REFUSED = ConnectionRefusedError if PY3 else socket.error

DIALECT, HOST = "0.4", "127.0.0.1"
PLAIN = False  # 0.6: JSON without base64
PORT = 0
GROUP = "None"  # a text, where there is none
FUNCTIONS = {}
SUBSCRIPTIONS = {}  # event -> subscriber -> tags
HEARD = []  # [time, args, kwargs] of each event
REQUESTS = []  # what each connection brought, as latin-1
CONSOLE = []  # tracebacks


def connected(tag):
    def register(function):
        FUNCTIONS[tag] = function
        return function
    return register


def b64(text):
    return base64.b64encode(text.encode("ascii"))


def own_tag(name):
    """The tag of a name that the application chose."""
    return name if PLAIN else b64(json.dumps({"raw": name})).decode("ascii")


def tag_of(name):
    return name if PLAIN else b64(name).decode("ascii")


def encode(value):
    if PLAIN:
        return json.dumps(value).encode("ascii")
    if isinstance(value, Flag):
        return b64(value.name)
    return b64(json.dumps(value if isinstance(value, dict) else {"raw": value}))


def decode(data):
    """What an old program makes of bytes: as much as it understands."""
    if PLAIN:
        data = data.decode("ascii")
    try:
        data = json.loads(data if PLAIN else base64.b64decode(data).decode("ascii"))
    except Exception:
        if not PY3:  # it looks for a class that Python 2 does not have
            raise AttributeError("'module' object has no attribute 'JSONDecodeError'")
    return data["raw"] if not PLAIN and isinstance(data, dict) and "raw" in data else data


class Flag(object):
    def __init__(self, name):
        self.name = name


# ------------------------------------------------------------------------- what it serves


@connected(HANDLERS + "info")
def info(*args, **kwargs):
    facts = {"group": GROUP, "host": HOST, "port": PORT, "hub": False}
    if DIALECT != "0.3":
        facts.update(executable="/opt/python/bin/python", user="root")
    if PLAIN:
        tag = "<net.Peer h:%s p:%s g:%s c:%s s:0 f:3>" % (HOST, PORT, GROUP, len(known()))
        facts.update(tag=tag, connections=sorted(known()), subscriptions=sorted(SUBSCRIPTIONS),
                     flags=FLAGS)
    return facts


@connected(HANDLERS + "connections")
def connections(*args, **kwargs):
    if PLAIN:
        raise AttributeError("'Peer' object has no attribute 'friendly_id'")
    return "Connections on %s:\n\t%s" % (info(), "\n\n\t".join(
        "%s\n\t\t%s" % (b64(name), function) for name, function in FUNCTIONS.items()))


@connected(HANDLERS + "null")
def null(*args, **kwargs):
    return "NULL" if PLAIN else Flag("NULL")


@connected(HANDLERS + "pass_through")
def pass_through(*args, **kwargs):
    return args[0] if len(args) == 1 else (args, kwargs)


@connected(HANDLERS + "subscription_handler")
def subscription_handler(event, *where):
    if PLAIN:
        host, port, tag = where
        subscriber = (host, port)
    else:
        subscriber, tag = where
        if DIALECT == "0.3" or "'" in subscriber:
            subscriber, tag = subscriber.split("'")[1], tag.split("'")[1]
    SUBSCRIPTIONS.setdefault(event, {}).setdefault(subscriber, []).append(tag)


@connected("app.echo")
def echo(value):
    return value


@connected("app.render")
def render(shot, frame, quality=None, preview=False):
    return [shot, frame, quality, preview]


@connected("app.give")
def give(kind):
    return {"int": 50, "str": "text", "list": [1, "two", None, 2.5, True], "none": None,
            "dict": {"width": 1920}, "tuple": (1, 2), "empty": "", "dict with raw":
            {"raw": 5, "more": 6}, "unicode": u"caf\u00e9 \u2713 \U0001f600"}[kind]


@connected("app.answer_busy")
def answer_busy():
    return "BUSY" if PLAIN else Flag("BUSY")


@connected("app.lift")  # of a class; the real ones leave that out
def lift(value):
    return ["lifted", value]


def tagged(value):
    """Has a tag of its own, ``Tagged``; in 0.6 that of its name as well."""
    return value


@connected("app.fail")
def fail(kind):
    raise {"ValueError": ValueError, "KeyError": KeyError}[kind]("no such frame: 7")


@connected("app.wait")
def wait(seconds):
    time.sleep(seconds)
    return seconds


@connected("app.on_tick")
def on_tick(*args, **kwargs):
    HEARD.append([time.time(), args, kwargs])
    time.sleep(kwargs.get("sleep", 0))


def known():
    """The functions by their tags."""
    found = dict((tag_of(name), one) for name, one in FUNCTIONS.items())
    if DIALECT != "0.3":  # which has no tags of an application's own
        found[own_tag("Tagged")] = tagged
    if PLAIN:
        found["app.tagged"] = tagged
    return found


def answer(data):
    if not data:
        return encode(Flag("NULL")) if not PLAIN else b"NULL"
    try:
        request = decode(data)
        if not request:
            return encode(Flag("NULL")) if not PLAIN else b"NULL"
        function = known().get(request["connection"])
        if function is None:
            return b"INVALID_CONNECTION" if PLAIN else b64("INVALID_CONNECTION")
        return encode(function(*request["args"], **request["kwargs"]))
    except Exception:
        CONSOLE.append(traceback.format_exc())
        return encode({"payload": "error", "traceback": traceback.format_exc()})


def serve(sock):
    try:
        data = sock.recv(LIMIT)
        REQUESTS.append(data.decode("latin-1"))
        sock.sendall(answer(data))
    except Exception:
        CONSOLE.append(traceback.format_exc())
    try:
        sock.shutdown(socket.SHUT_WR)
    except socket.error:
        pass  # as the standard library's server does
    sock.close()


def accept(listener):
    while True:
        sock, _ = listener.accept()
        start(serve, sock)


def start(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.daemon = True
    thread.start()
    return thread


# --------------------------------------------------------------------------- what it asks


def request(host, port, tag, args, kwargs):
    """One request and what an old program makes of the reply."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if kwargs.get("time_out"):
        sock.settimeout(kwargs["time_out"])
    try:
        sock.connect((host, port))
        sock.sendall(encode({"connection": tag, "args": args, "kwargs": kwargs}))
        raw = sock.recv(LIMIT)
    finally:
        sock.close()
    name = raw.decode("latin-1") if PLAIN else dict((b64(flag), flag) for flag in FLAGS).get(raw)
    if name in FLAGS or PLAIN and name.strip('"') in FLAGS:
        if name == "INVALID_CONNECTION":
            raise Exception("Peer does not have the connection you are requesting.")
        return name.strip('"')
    reply = decode(raw)
    if isinstance(reply, dict) and reply.get("payload") == "error":
        raise Exception("RemoteError\n" + reply["traceback"])
    return reply


def call(host, port, name, args, kwargs, own=False):
    if PLAIN:  # it leaves its own keyword in what it sends
        kwargs = dict(kwargs, peer=[host, port])
    return request(host, port, own_tag(name) if own else tag_of(name), args, kwargs)


def method(host, port, name, args, kwargs):
    """A call as a method of an object of 0.6."""
    return request(host, port, tag_of(name), args, kwargs)


def named_method(host, port, name, args):
    """The same of an object that a search of 0.6 has made: by the end of a tag that it lists."""
    listed = call(host, port, HANDLERS + "info", [], {"time_out": 5})["connections"]
    tags = dict((tag.rsplit(".")[-1], tag) for tag in listed)
    if name not in tags:
        raise AttributeError("'Peer' object has no attribute %r" % name)
    return method(host, port, tags[name], args, {})


def subscribe(host, port, event, name):
    if PLAIN:
        args = [event, HOST, PORT, name]
    else:
        peer = b64("%s:%s -> %s" % (HOST, PORT, GROUP))
        args = [event, str(peer), str(b64(name))]  # on Python 3 with b and quotes
    return request(host, port, tag_of(HANDLERS + "subscription_handler"), args, {})


def bring(subscriber, tag, args, kwargs, problems, stale):
    """Call a subscriber with an event."""
    place = subscriber
    if not PLAIN:
        host, port = base64.b64decode(subscriber).decode("ascii").split(" -> ")[0].split(":")
        place = host, int(port)
    try:
        request(place[0], place[1], tag, args, kwargs)
    except Exception as problem:
        problems.append(type(problem).__name__)
        if isinstance(problem, REFUSED):
            stale.append(subscriber)


def fire(event, *args, **kwargs):
    """Trigger an event; the names of exceptions that came of it.

    0.3 calls one subscriber after the other, and raises where one cannot be called.
    """
    problems, stale, threads = [], [], []
    for subscriber, tags in SUBSCRIPTIONS.get(event, {}).items():
        for tag in tags:
            if DIALECT != "0.3":
                threads.append(start(bring, subscriber, tag, args, kwargs, problems, stale))
            elif not problems:
                bring(subscriber, tag, args, kwargs, problems, stale)
    for thread in threads:
        thread.join()
    if DIALECT != "0.3":
        for subscriber in stale:
            SUBSCRIPTIONS[event].pop(subscriber, None)
    return problems


def scan(hosts, ports):
    """What one thread of a search finds, and what it dies of."""
    found = []
    for host in hosts:
        for port in ports:
            if (host, port) == (HOST, PORT):
                continue
            try:
                facts = call(host, port, HANDLERS + "info", [], {"time_out": 0.1})
                if DIALECT == "0.3":
                    found.append([host, port])
                    continue
                if facts["group"] not in (GROUP,):
                    continue
                for name in NEEDED if PLAIN else ("hub",):
                    facts[name]
                found.append([host, port])
            except (socket.error, OSError):
                pass
            except Exception as problem:
                return {"found": found, "died": "%s:%s %r" % (host, port, problem)}
    return {"found": found, "died": None}


def state():
    return {"heard": HEARD, "requests": REQUESTS, "console": CONSOLE,
            "subscriptions": dict((event, [[str(peer), tags] for peer, tags in peers.items()])
                                  for event, peers in SUBSCRIPTIONS.items())}


def forget():
    del HEARD[:], REQUESTS[:], CONSOLE[:]


COMMANDS = dict((one.__name__, one) for one in (
    call, method, named_method, subscribe, scan, state, forget))


def main():
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, PORT))
    listener.listen(5)
    start(accept, listener)
    print("ready %s" % PORT)
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ""):
        given = json.loads(line)
        try:
            if given[0] == "fire":
                done = fire(given[1], *given[2], **given[3])
            else:
                done = COMMANDS[given[0]](*given[1:])
            print(json.dumps(["returned", done]))
        except Exception as problem:
            print(json.dumps(["raised", type(problem).__name__, str(problem)]))
        sys.stdout.flush()


if __name__ == "__main__":
    DIALECT, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
    PLAIN = DIALECT == "0.6"
    if DIALECT == "0.3":
        del FUNCTIONS[HANDLERS + "connections"]
    main()
