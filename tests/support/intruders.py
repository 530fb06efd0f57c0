"""A tagged object of each kind, to be put where it does not belong."""
from __future__ import annotations

import travel  # registers classes
from net.wire.values import LONG

assert travel

# One of each kind, some of which are much larger when they are unrolled.
INTRUDERS = {
    "!tuple": '{"!tuple":[1,2,3]}', "!set": '{"!set":[1,2]}', "!frozenset": '{"!frozenset":["a"]}',
    "!deque": '{"!deque":[null,1]}', "!ordered": '{"!ordered":["a",1]}',
    "!counter": '{"!counter":["a",1000000000]}', "!range": '{"!range":[0,1000000000000,1]}',
    "!complex": '{"!complex":[1.0,2.0]}', "!bytes": '{"!bytes":"AQID"}',
    "!bytearray": '{"!bytearray":"AQID"}', "!memoryview": '{"!memoryview":"AQID"}',
    "!datetime": '{"!datetime":[2020,1,1,0,0,0,0,0,null]}', "!date": '{"!date":[2020,1,1]}',
    "!time": '{"!time":[1,2,3,4,0,null]}', "!timedelta": '{"!timedelta":[1,2,3]}',
    "!timezone": '{"!timezone":[0,3600,0]}', "!decimal": '{"!decimal":"1E+999999"}',
    "!fraction": '{"!fraction":[1,3]}', "!uuid": '{"!uuid":"00000000000000000000000000000005"}',
    "!peer": '{"!peer":["MTI3LjAuMC4xOjMwMTAgLT4gTm9uZQ=="]}', "!dict": '{"!dict":[1,2]}',
    "!int": '{"!int":"0x' + "f" * 5000 + '"}', "!str": '{"!str":0}',
    "!value": '{"!value":{"class":"travel.Pair","left":1,"right":2}}',
    "!path": '{"!path":["pure posix","a"]}', "!array": '{"!array":["<i4",[1],"C","AQAAAA=="]}',
    "!scalar": '{"!scalar":["<i4","AQAAAA=="]}', "!zone": '{"!zone":"UTC"}',
    "!columns": '{"!columns":["aba",["tuple",[],[1,2]],["any",[],["x"]]]}',
    "!lent": '{"!lent":[0,"iterator","frames"]}',
}
BUFFER = b"x" * LONG

# What is just another form of the JSON type that is due there.
SAME = {"!int", "!str", "!dict", "!columns"}
