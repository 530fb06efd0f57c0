"""The first example: start this in two or more terminals, on one host or on several.

    python3 examples/multiply.py            serve, until Ctrl-C
    python3 examples/multiply.py 5 10       multiply here, and on every peer that is found
"""
from __future__ import annotations

import sys
import threading

import net


@net.connect
def multiply(some_arg, some_kwarg=5):
    return some_arg * some_kwarg


def main() -> None:
    numbers = [float(word) for word in sys.argv[1:]]
    if not numbers:
        print("serving as", net.Peer().friendly_id, flush=True)
        threading.Event().wait()
    print("here:", multiply(*numbers))
    for peer_id in multiply.peers():
        print(f"{peer_id}:", multiply(*numbers, peer=peer_id))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
