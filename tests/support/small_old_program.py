"""The core of old_program.py in 60 lines, true to the recorded bytes: for old Pythons."""
import base64, json, socket, sys, threading, traceback  # noqa: E401

DIALECT, HOST, PORT, NET = "0.4", "127.0.0.1", 3010, "net.defaults.handlers."
STATE = {"heard": [], "requests": [], "console": [], "subscriptions": {}}


def coded(text):  # in 0.4 messages, tags, flags and ids are base64
    return text if DIALECT == "0.6" else base64.b64encode(text.encode("ascii")).decode("ascii")


def encode(value):
    bare = DIALECT == "0.6" or isinstance(value, dict)
    return coded(json.dumps(value if bare else {"raw": value})).encode("ascii")


def decode(data):
    value = json.loads((data if DIALECT == "0.6" else base64.b64decode(data)).decode("ascii"))
    return value["raw"] if isinstance(value, dict) and "raw" in value else value


def answer(data):
    functions = {
        "app.echo": lambda value: value,
        "app.on_tick": lambda *args: STATE["heard"].append([0, args]),
        NET + "info": lambda **kwargs: dict(
            group="None", host=HOST, port=PORT, hub=False, executable="", user="", tag="",
            connections=sorted(functions), subscriptions=[], flags=[]),
        NET + "subscription_handler": lambda event, *where: STATE["subscriptions"].setdefault(
            event, []).append(where)}
    try:
        given = decode(data)
        found = [functions[name] for name in functions if coded(name) == given["connection"]]
        return encode(found[0](*given["args"], **given["kwargs"])) if found \
            else coded("INVALID_CONNECTION").encode("ascii")
    except Exception:
        STATE["console"].append(traceback.format_exc())
        return encode({"payload": "error", "traceback": traceback.format_exc()})


def serve(listener):
    while True:  # one request for each connection: received once, answered in one piece
        sock = listener.accept()[0]
        STATE["requests"].append(sock.recv(1024).decode("latin-1"))
        sock.sendall(answer(STATE["requests"][-1].encode("latin-1")))
        sock.close()


def call(host, port, name, args, kwargs, tag=None):
    sock = socket.create_connection((host, int(port)), 10)
    sock.sendall(encode({"connection": tag or coded(name), "args": args, "kwargs": kwargs}))
    data = sock.recv(1024)
    sock.close()
    return "INVALID" if data == coded("INVALID_CONNECTION").encode("ascii") else decode(data)


def subscribe(host, port, event, name):  # Python 3 sends what it writes for bytes: b and quotes
    where = [HOST, PORT, name] if DIALECT == "0.6" else [
        str(coded(text).encode("ascii")) for text in ("%s:%s -> None" % (HOST, PORT), name)]
    return call(host, port, NET + "subscription_handler", [event] + where, {})


def fire(event, args, kwargs):
    for where in STATE["subscriptions"][event]:
        if DIALECT == "0.4":
            place, tag = [text.split("'")[-2] if "'" in text else text for text in where]
            where = base64.b64decode(place).decode("ascii").split(" -> ")[0].split(":") + [tag]
        call(where[0], where[1], "", args, kwargs, where[2])


if __name__ == "__main__":  # a command and its arguments in each line of its input
    DIALECT, HOST, PORT, server = sys.argv[1], sys.argv[2], int(sys.argv[3]), socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((HOST, PORT))
    server.listen(5)
    thread = threading.Thread(target=serve, args=(server,))
    thread.daemon = True
    thread.start()
    sys.stdout.write("ready %s\n" % PORT)
    for line in iter(lambda: [sys.stdout.flush(), sys.stdin.readline()][1], ""):
        name, given = json.loads(line)[0], json.loads(line)[1:]
        print(json.dumps(["returned", STATE if name == "state" else globals()[name](*given)]))
