"""Which of the listed peers are alive: a few watch on behalf of all. No socket, no clock, no
thread.

The processes that list peers form a ring, in the order of their instances. Each watches the peers
between its predecessor on the ring, that one included, and itself: it asks them for a beat every
second or two. So whatever the number of watchers, a peer sends one small datagram in that time. Now
and then it asks those that its predecessor watches, too: no single watcher can hide a death.

A missing beat is not a verdict. The watcher asks twice, then tells all others of its doubt, and
each of them asks for itself. Meanwhile a TCP connection shows whether the port is closed, which
settles the matter at once, or still open, as that of a process that is only busy. No process lists
or drops a peer because another one says so: such a message only makes it ask that peer.

Those that list peers compare, with every beat, how many they list and the sum of their instances.
Where that differs for longer than news takes, they exchange their lists, and ask the peers that
only one of them has. So lost datagrams only delay what each process knows.
"""
from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from functools import partial
from itertools import count
from random import Random
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Protocol, Tuple

from ..errors import Address
from ..link.addresses import rank_of, zone_of
from .lan.datagrams import (ANSWER, ANSWER_BYTES, ASK, ASK_BYTES, BEAT, DOUBT, GOODBYE, HELLO,
                            LIST, MAX_DATAGRAM, MAX_FACTS, Message, NOBODY, NONCE_BYTES, REPLY,
                            SEAL_BYTES, SECURED, WATCHING, Entry, Question, Said, encode_list,
                            encode_question, facts_digest, read_list, read_said, read_sum)
from .lan.responder import Bucket

# Seconds between two beats: PER_PEER for each peer that is listed, within these limits. More peers
# beat less often each, so that all together send some 2,500 datagrams a minute.
PER_PEER, MIN_BEAT, MAX_BEAT = 0.024, 1.0, 2.5
# Seconds that a beat may be late, for a scheduler that is busy.
GRACE = 0.15
# Seconds that beats are asked for, and after how much of that they are asked for again.
LEASE, RENEWED = 180, 0.8
# Seconds between a watcher's looks at what its predecessor watches, in case that one keeps silent:
# SECOND_PER_PEER for each peer that is listed, within these limits. And the likelihood that it
# looks at some other peer as well, in case several watchers do. All of these looks together are
# some 140 datagrams a minute.
SECOND_PER_PEER, MIN_SECOND, MAX_SECOND, ANY_OTHER = 1.2, 30.0, 120.0, 0.25

# Seconds until a question is asked again: by the measured round trips, within these limits, and
# before any was measured.
MIN_WAIT, MAX_WAIT, FIRST_WAIT = 0.05, 1.0, 0.15
# How much longer than the quickest answer any other one may take.
SLOWER = 1.25
# A known peer that neither answers nor refuses is gone after PATIENCE seconds and MIN_TRIES
# questions. While a hardware address is asked for, here or there, all that is sent waits, and a
# question for it that was lost is repeated after a second. With more loss it takes more questions:
# so many that the likelihood of all of them being lost is below RISK. Below DOUBTFUL, others are
# asked to find out, too.
PATIENCE, MIN_TRIES, MAX_TRIES, RISK, DOUBTFUL = 1.2, 4, 12, 1e-4, 5e-3
# Where the last SURE datagrams have all come, hardly any is lost: that is unlikely where one in
# twenty is.
SURE = 120
# How many times an address is asked that only another peer has named.
HINT_TRIES = 4
# Seconds that a peer is kept whose port accepts, but which answers nothing.
FROZEN = 10.0
# Seconds after which such a peer is asked over TCP to identify itself.
STUCK = 2.0
# Seconds between looks at a peer that answers no datagrams.
TCP_LOOK = 2.0
# This many looks in a row have to come to nothing before it counts as gone, unless its port is
# closed: a packet may be lost, and a connection takes several.
TCP_LOOKS = 3

# A peer that vanished without a word is asked whether it is back: seconds between two questions,
# and for how long; how many of them are remembered.
LOST_AGAIN, LOST_SECONDS, MAX_LOST = 2.0, 600.0, 256
# How many others are asked when a peer seems to have vanished: perhaps it is this host that is cut
# off. And after how many seconds each of these, if it is silent, has as many asked; sooner, a
# machine that is busy would ask everybody, and be busier still.
WITNESSES, SILENCE = 3, 0.5
# When a peer's port is closed, as many others are asked as went the same way in the last seconds:
# many processes may have ended together, and each stands between this one and the next.
ENDED_SECONDS, MAX_ENDED = 3.0, 64

# Addresses that others have named and that wait for an answer; how many one host may name at once
# and in a second; and all together, since a sender that forges its address can be a thousand hosts.
MAX_CHECKS, HINT_BURST, HINT_RATE = 1024, 160, 8
ALL_BURST, ALL_RATE = 1024, 128
# Hosts that are remembered as having named addresses, and processes as having said hello.
MAX_TELLERS = 1024
# Entries of one DOUBT that are looked into.
MAX_DOUBTS = 32
# Seconds in which one goodbye of a peer that is there all the same is looked into, and one list is
# sent back to it. Anybody on the network can say goodbye in the name of another, or repeat what it
# has said.
ONE_GOODBYE, ONE_LIST = 1.0, 0.5

# Seconds, for each listed peer, between two looks at who watches whom while others come: each moves
# a share, and many may come at once.
REASSIGN = 0.005

# Seconds between the first and the last datagram of one hello; and those for which a hello counts
# as newer than an answer that is listed only then: the answer may have come early in a search of
# four seconds.
ONE_HELLO, NEWER = 0.1, 5.0

# Seconds that lists may differ because news is on its way; between two exchanges that brought
# nothing new, at first and at most.
NEWS, EXCHANGE, MAX_EXCHANGE = 1.0, 1.0, 60.0

# Seconds that a step may be late before the host counts as having slept. What was missed meanwhile
# then does not count against any peer.
LATE, ASLEEP = 0.2, 3.0

# Watchers that are told one by one; if there are more, the rest are told by broadcast.
FEW = 8
# Seconds after which doubts are told again where datagrams may be lost.
TELL_AGAIN = (0.2, 0.5)

# Where another watcher has doubts about a peer, seconds from when that peer was last heard until it
# is asked: it may have died just after.
RECENT = 0.3

NO_PERMIT = bytes(NONCE_BYTES)

#: What a connection attempt came to.
REFUSED, ACCEPTED, SILENT = "refused", "accepted", "silent"


class Heard(NamedTuple):
    """A peer that has answered.

    :ivar facts: as JSON; None if they have to be asked for over TCP.
    :ivar seconds: from the question to the answer.
    :ivar permit: what proves to it that its answers reach us, if it was asked from the socket
        that matters.
    """

    address: Address
    instance: bytes
    flags: int
    facts: Optional[bytes]
    seconds: float
    permit: bytes = NO_PERMIT


class Outlet(Protocol):
    """What a membership can do, and what it reports."""

    def send(self, message: Message, address: Address) -> None:
        """Send a datagram."""

    def tell_all(self, message: Message) -> None:
        """Send a datagram to all hosts on the LAN."""

    def hello(self) -> None:
        """Announce on the LAN that this process is there, and whether it watches."""

    def look_around(self) -> None:
        """Ask all peers on the LAN to answer, except those that are listed."""

    def knock(self, address: Address) -> None:
        """Connect, and call :meth:`Membership.knocked` with the outcome."""

    def probe(self, address: Address) -> None:
        """Ask this address over TCP to identify itself, and call :meth:`Membership.probed`."""

    def reaches(self, address: Address) -> bool:
        """Whether a peer of ours may be at this address: on the LAN, of our ports, not our own."""

    def found(self, heard: Heard) -> None:
        """A peer has answered that is not listed, or is not the one listed at this address."""

    def lost(self, address: Address) -> None:
        """A listed peer is gone."""


class Member:
    """A listed peer.

    :ivar permit: what it gave us to prove that its answers reach us.
    :ivar heard: when it showed that it is alive.
    :ivar nonce: that of the question that asked it for beats; None while it is not ours to watch.
    :ivar beats: how many it has sent for that question, those that were lost included.
    :ivar goodbye: when a goodbye of it was last looked into.
    :ivar listed: when it was last sent a list back.
    :ivar period: seconds between the beats that it was asked for.
    :ivar due: when its next beat should come.
    :ivar deadline: when that is overdue.
    :ivar renewal: when beats are asked for again.
    :ivar timer: for what is to be done about it next.
    :ivar by_datagram: whether it answers datagrams at all.
    :ivar looks: how many looks in a row have come to nothing, at a peer without datagrams.
    :ivar said: the digest of what it says about itself; empty if that is not known here.
    """

    def __init__(self, address: Address, instance: bytes, flags: int, by_datagram: bool,
                 now: float) -> None:
        self.said = b""
        self.looks = 0
        self.address = address
        self.instance = instance
        self.flags = flags
        self.by_datagram = by_datagram
        self.heard = now
        self.permit = NO_PERMIT
        self.nonce: Optional[bytes] = None
        self.beats = 0
        self.goodbye = self.listed = -math.inf
        self.watched = False
        self.period = 0.0
        self.due = 0.0
        self.deadline = 0.0
        self.renewal = 0.0
        self.timer: Optional[Timer] = None

    @property
    def entry(self) -> Entry:
        return Entry(self.address, self.instance)


class Check:
    """A question to one address, until it is answered or settled otherwise.

    :ivar tell: whether the others are told if it is not answered soon.
    :ivar outcome: of the connection attempt.
    :ivar told: whether the others have been told.
    :ivar doubted: whether some other peers have been asked whether they are there.
    """

    def __init__(self, address: Address, began: float, size: int, tell: bool) -> None:
        self.address = address
        self.began = began
        self.size = size
        self.tell = tell
        self.tries = 0
        self.nonces: List[bytes] = []
        self.outcome = ""
        self.told = self.doubted = False
        self.knocked = False
        self.probed = False
        self.lease = False
        self.timer: Optional[Timer] = None


class Timer:
    """Something that is to be done later, unless it is cancelled."""

    def __init__(self, when: float, action: Callable[[float], None]) -> None:
        self.when = when
        self.action: Optional[Callable[[float], None]] = action

    def cancel(self) -> None:
        self.action = None


class Timers:
    """What is to be done when. Times are those that the caller gives."""

    def __init__(self) -> None:
        self._heap: List[Tuple[float, int, Timer]] = []
        self._number = count()

    def at(self, when: float, action: Callable[[float], None]) -> Timer:
        """Have something done at a time; ``action`` is given the time when it is."""
        timer = Timer(when, action)
        heapq.heappush(self._heap, (when, next(self._number), timer))
        return timer

    @property
    def due(self) -> float:
        """When there is something to do; infinity if there is nothing."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def run(self, now: float) -> None:
        """Do what is due."""
        while self.due <= now:
            action = heapq.heappop(self._heap)[2].action
            if action is not None:
                action(now)


class RoundTrips:
    """How long answers take, and how many get lost."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.deviation = 0.0
        self.loss = 0.0
        self._least = math.inf
        self._in_a_row = SURE

    def came(self, number: int = 1) -> None:
        """So many datagrams have come, and none before them was lost."""
        self._in_a_row += number

    def lost(self) -> None:
        """A datagram was lost."""
        self._in_a_row = 0

    def searched(self, answers: int, loss: float) -> None:
        """A search had so many answers, and this share of its questions and answers was lost."""
        self.lost() if loss else self.came(2 * answers)

    @property
    def lossy(self) -> bool:
        """Whether a datagram was lost lately."""
        return self._in_a_row < SURE

    def measured(self, seconds: float, tries: int) -> None:
        """A question was answered: after this many seconds, at this try."""
        self.came(2) if tries == 1 else self.lost()
        if self._least == math.inf:
            self.mean, self.deviation = seconds, seconds / 2
        else:
            self.deviation += (abs(seconds - self.mean) - self.deviation) / 8
            self.mean += (seconds - self.mean) / 8
        self.loss += ((tries - 1) / tries - self.loss) / 16
        self._least = min(self._least, seconds)

    def calm(self) -> None:
        """Something came when it was due: what made answers slow for a while is over."""
        if self._least < math.inf:
            self.mean += (self._least - self.mean) / 2
            self.deviation /= 2

    @property
    def wait(self) -> float:
        """Seconds after which an answer is not coming any more, most likely."""
        if self._least == math.inf:
            return FIRST_WAIT
        return min(MAX_WAIT, max(MIN_WAIT, SLOWER * self._least,
                                 self.mean + 4 * self.deviation))

    def _tries(self, risk: float) -> int:
        return math.ceil(math.log(risk) / math.log(min(0.6, max(0.02, self.loss))))

    @property
    def tries(self) -> int:
        """How many questions in a row cannot all have been lost."""
        return min(MAX_TRIES, max(MIN_TRIES, self._tries(RISK)))

    @property
    def doubtful(self) -> int:
        """How many in a row are lost so seldom that the others should ask, too."""
        return min(MAX_TRIES, max(2, self._tries(DOUBTFUL)))


class Greeting(NamedTuple):
    """A hello: from where and when it came, and its flags."""

    address: Address
    when: float
    flags: int


class Lost(NamedTuple):
    """A peer that vanished."""

    member: Member
    since: float


class Membership:
    """The listed peers of one process, and what it does to keep them true. For one thread.

    :param instance: that of this process.
    :param port: the port that it serves; 0 if it serves none. Then it has no place on the ring, and
        watches all peers for itself.
    :param permit: gives what an address has to return to be believed.
    :param sealed: whether datagrams are longer by a seal.
    """

    def __init__(self, instance: bytes, port: int, outlet: Outlet,
                 permit: Callable[[Address], bytes], sealed: bool = False,
                 random: Optional[Random] = None) -> None:
        self._instance = instance
        self.port = port
        self._outlet = outlet
        self._permit = permit
        self._sealed = sealed
        self._random = random or Random()
        self.timers = Timers()
        self.round_trips = RoundTrips()
        self.members: Dict[Address, Member] = {}
        self.watching = False
        self._checks: Dict[Address, Check] = {}
        # nonce -> its check, when it was asked, which try it was
        self._asked: Dict[bytes, Tuple[Check, float, int]] = {}
        self._lost: Dict[Address, Lost] = {}
        # When peers whose port is closed were found to be gone, in the last seconds.
        self._ended: List[float] = []
        self._tellers: Dict[str, Bucket] = {}
        self._all = Bucket(ALL_BURST, ALL_RATE, 0.0)
        # The last hello of each process.
        self._greeted: Dict[bytes, Greeting] = {}
        self._changed = 0.0
        self._assigning: Optional[Timer] = None
        self._assigned = -math.inf
        self._exchanges: Dict[Address, Tuple[float, float]] = {}
        self._safety: Optional[Timer] = None
        self._alone: Optional[Timer] = None
        self._late = False

    # ------------------------------------------------------------------ what the cache says

    def watch(self, watching: bool, now: float) -> None:
        """From now on this process watches on behalf of all, or stops doing so."""
        if watching == self.watching:
            return
        self.watching = watching
        if self.members:
            # For the others on the ring.
            self._outlet.hello()
        if watching:
            # Others may be about to watch, too.
            self._assigned = now
            # Those that have started since the last question of the search.
            for address, _ in self.newcomers(now - NEWER):
                self._hint(address, address[0], now, self._spread(0.05))
            self._safety = self.timers.at(now + self._spread(MAX_SECOND), self._look_at_others)
        else:
            for timer in (self._safety, self._alone):
                if timer is not None:
                    timer.cancel()
            self._alone = None
            self._lost.clear()
            for check in list(self._checks.values()):
                self._end(check)
        self._reassign(now, soon=not watching)

    def moved(self, port: int, now: float) -> None:
        """This process sends from another socket from now on, and serves at another port or none.
        What others know about it was true of the old one.
        """
        self.port = port
        for member in self.members.values():
            if member.watched:
                self._end_watching(member)
            member.permit, member.nonce = NO_PERMIT, None
        self._reassign(now)

    def add(self, heard: Heard, now: float, by_datagram: bool = True) -> None:
        """A peer is listed from now on. It may be listed already."""
        before = self._lost.pop(heard.address, None)
        if before is not None and before.member.instance == heard.instance:
            # It was there: this network does not carry all.
            self.round_trips.lost()
        member = self.members.get(heard.address)
        if member is not None and member.instance != heard.instance:
            self._forget(heard.address)
            member = None
        if member is None:
            member = Member(heard.address, heard.instance, heard.flags, by_datagram, now)
            self.members[heard.address] = member
            self._changed = now
            self._reassign(now, soon=False)
        if self._alone is not None:
            # A peer at an address that had none: it has to hear of us, too.
            self._alone.cancel()
            self._alone = None
            self._outlet.hello()
        member.by_datagram |= by_datagram
        if heard.permit != NO_PERMIT:
            member.permit = heard.permit
        if by_datagram:
            self._alive(member, self._newest_flags(heard, now), now)
            member.said = facts_digest(heard.facts)

    def _newest_flags(self, heard: Heard, now: float) -> int:
        """The flags of a peer that is listed now. It may have begun to watch since it answered, as
        all do that search at the same time; each would watch too many without knowing."""
        greeting = self._greeted.get(heard.instance)
        if greeting is None or greeting.address != heard.address or now - greeting.when > NEWER:
            return heard.flags
        return heard.flags & ~WATCHING | greeting.flags & WATCHING

    def drop(self, address: Address, now: float) -> None:
        """A peer is no longer listed."""
        if address in self.members:
            self._forget(address)
            self._changed = now
            self._reassign(now)

    def doubt(self, address: Address, now: float, tell: bool = False) -> None:
        """Find out whether a peer is gone, or is another one."""
        if address in self.members:
            self._check(address, now, tell=tell)

    def look_at(self, address: Address, now: float) -> None:
        """Ask an address that a peer names, and that is not listed."""
        self._hint(address, address[0], now)

    def sum(self) -> Tuple[int, int]:
        """How many peers are listed, and the sum of their instances, this one included."""
        if not self.watching:
            return 0, 0
        known = [member.instance for member in self.members.values() if member.by_datagram]
        if self.port:
            known.append(self._instance)
        total = sum([int.from_bytes(instance[:8], "big") for instance in known])
        return len(known), total % 2 ** 64

    def newcomers(self, since: float) -> List[Tuple[Address, bytes]]:
        """Address and instance of those that have said hello since then and are not listed. Any
        thread may call."""
        return [(one.address, instance) for instance, one in list(self._greeted.items())
                if one.when >= since and one.address not in self.members]

    @property
    def digests(self) -> Iterable[bytes]:
        """The instances of the peers that need not answer a question to all."""
        return [member.instance for member in self.members.values() if member.by_datagram]

    def tick(self, now: float) -> None:
        """Do what is due."""
        late = now - self.timers.due
        self._late = late > LATE
        if late > ASLEEP and self.members:
            self.awake(now)
        self.timers.run(now)
        self._late = False

    def awake(self, now: float) -> None:
        """This host or process has slept, or its network has changed: what it knows may be old."""
        self._outlet.hello()
        self._outlet.look_around()
        for member in self.members.values():
            member.deadline = max(member.deadline, now + LATE)
            if member.by_datagram:
                self._check(member.address, now,
                            self._spread(min(3.0, 0.02 * len(self.members))))

    # ------------------------------------------------------------------ what comes

    def received(self, message: Message, source: Address, now: float) -> None:
        """A datagram that is not a question has arrived."""
        if message.kind == ANSWER:
            self._answer(message, source, now)
        elif message.instance == NOBODY:
            return
        elif message.kind == HELLO:
            self._hello(message, (source[0], message.port), now)
        elif not self.knows_anybody:
            return
        elif message.kind == BEAT:
            self._beat(message, source, now)
        elif message.kind == GOODBYE:
            self._goodbye(message, (source[0], message.port), now)
        elif message.kind == DOUBT:
            self._doubted(message, (source[0], message.port), now)
        elif message.kind == LIST and message.nonce == self._permit(source):
            self._listed(message, source, now)

    @property
    def knows_anybody(self) -> bool:
        """Whether news matters: the application has asked for peers."""
        return self.watching or bool(self.members)

    def asked(self, message: Message, source: Address, now: float) -> None:
        """A question has come and been answered. It identifies the asker, too."""
        if message.instance == NOBODY or source[1] != message.port or not self.knows_anybody:
            return
        member = self.members.get(source)
        if member is None or member.instance != message.instance:
            if self.watching:
                self._hint(source, source[0], now, self._spread(0.3))
        else:
            self._alive(member, message.flags, now, proof=False)

    def _answer(self, message: Message, source: Address, now: float) -> None:
        check, asked, tries = self._asked.get(message.nonce, (None, 0.0, 0))
        if check is None or check.address != source:
            return
        said = read_said(message.body)
        if said is None or message.instance == NOBODY or source[1] != message.port:
            return
        self.round_trips.measured(now - asked, tries)
        member = self.members.get(source)
        if member is None or member.instance != message.instance:
            self._end(check)
            self._introduced(message, said, check, now - asked, now)
            return
        used, member.permit = member.permit, said.permit
        self._alive(member, message.flags, now)
        if said.facts is not None and facts_digest(said.facts) != member.said:
            self._outlet.found(Heard(source, message.instance, message.flags, said.facts,
                                     now - asked, said.permit))
        if check.lease:
            member.nonce, member.beats = message.nonce, 0
            self._expect(member, now)
            if used != said.permit and member.watched:
                # It has given no beats yet, since we had no permit.
                self._end(check)
                self._check(source, now, lease=True)
                return
        self._end(check)

    def _introduced(self, message: Message, said: Said, check: Check, seconds: float,
                    now: float) -> None:
        """An address has answered that is not listed, or with another instance."""
        source = check.address
        if said.facts is None and said.size > MAX_FACTS or message.flags & SECURED \
                and not self._sealed:
            self._outlet.probe(source)
        elif said.facts is None:
            self._check(source, now, size=ANSWER_BYTES + said.size + SEAL_BYTES, tell=check.tell)
        else:
            self._outlet.found(Heard(source, message.instance, message.flags, said.facts, seconds,
                                     said.permit))
            if check.tell:
                self._tell(Entry(source, message.instance), now, found=True)

    def _alive(self, member: Member, flags: int, now: float, proof: bool = True) -> None:
        """A peer has shown that it is there. Without proof only its flags are taken over: only the
        predecessor's matter, and that one is asked for beats."""
        if proof:
            member.heard = now
        if member.flags & WATCHING != flags & WATCHING:
            self._reassign(now, soon=False)
        member.flags = flags

    def _beat(self, message: Message, source: Address, now: float) -> None:
        member = self.members.get(source)
        if member is None or member.instance != message.instance:
            return
        if not member.watched:
            # It was asked for when the peer was still ours to watch.
            if member.nonce == message.nonce:
                self._end_watching(member)
            return
        theirs = read_sum(message.body)
        if member.nonce != message.nonce or theirs is None or theirs[2] < member.beats:
            return
        if member.beats == theirs[2] and now < member.due + GRACE:
            self.round_trips.calm()
        self.round_trips.came() if theirs[2] == member.beats else self.round_trips.lost()
        member.beats = theirs[2] + 1
        self._alive(member, message.flags, now)
        self._expect(member, now)
        check = self._checks.get(source)
        if check is not None and not check.lease:
            self._end(check)
        if theirs[0] and theirs[:2] != self.sum():
            self._differs(member, now)

    def _is_repeated(self, instance: bytes, greeting: Greeting) -> bool:
        """Whether a hello is one that has just come from an address that is asked first. A peer
        with addresses of both families says it from each."""
        before = self._greeted.get(instance)
        if before is not None and greeting.when - before.when < ONE_HELLO \
                and rank_of(before.address) < rank_of(greeting.address) \
                and (before.address in self.members or self._outlet.reaches(before.address)):
            return True
        if len(self._greeted) >= MAX_TELLERS:
            self._greeted.clear()
        self._greeted[instance] = greeting
        return False

    def _hello(self, message: Message, address: Address, now: float) -> None:
        repeated = self._is_repeated(message.instance, Greeting(address, now, message.flags))
        if repeated or not self.knows_anybody:
            return
        member = self.members.get(address)
        said = read_said(message.body)
        size = ANSWER_BYTES + said.size + SEAL_BYTES if said is not None else ASK_BYTES
        # All that have heard it ask, but not all at the same moment.
        spread = self._spread(min(0.3, 0.001 * len(self.members)))
        if member is None or member.instance != message.instance:
            self._hint(address, address[0], now, spread, size)
            for other in list(self.members.values()):
                if other.instance == message.instance:
                    # The same process, at another address than before: it may have moved, and what
                    # it says about itself has changed.
                    self._hint(other.address, address[0], now, spread, size, tell=True)
            return
        self._alive(member, message.flags, now, proof=False)
        if said is not None and member.by_datagram and said.permit != member.said:
            self._changed_facts(member, said, address[0], now, spread, size)

    def _changed_facts(self, member: Member, said: Said, teller: str, now: float, spread: float,
                       size: int) -> None:
        """What a peer says about itself has changed."""
        if said.size <= MAX_FACTS:
            self._hint(member.address, teller, now, spread, size)
        else:
            member.said = said.permit
            self._outlet.probe(member.address)

    def _goodbye(self, message: Message, address: Address, now: float) -> None:
        member = self.members.get(address)
        if member is not None and member.instance == message.instance \
                and now - member.goodbye >= ONE_GOODBYE and self._all.take(now):
            member.goodbye = now
            self._check(address, now, self._spread(0.05), knock=True)

    # ------------------------------------------------------------------ questions to one address

    def _spread(self, seconds: float) -> float:
        """A random time within this many seconds, so that not all act at once."""
        return self._random.random() * seconds

    def _hint(self, address: Address, teller: str, now: float, delay: float = 0.0,
              size: int = ASK_BYTES, tell: bool = False) -> None:
        """Another peer says that there is a peer at an address: ask it, unless too many such hints
        are pending."""
        if address not in self.members and not self._outlet.reaches(address):
            return
        bucket = self._tellers.get(teller)
        if bucket is None:
            if len(self._tellers) >= MAX_TELLERS:
                self._tellers.clear()
            bucket = self._tellers[teller] = Bucket(HINT_BURST, HINT_RATE, now)
        if len(self._checks) < MAX_CHECKS and bucket.take(now) and self._all.take(now):
            self._check(address, now, delay, min(size, MAX_DATAGRAM), tell)

    def _check(self, address: Address, now: float, delay: float = 0.0, size: int = 0,
               tell: bool = False, lease: bool = False, knock: bool = False) -> None:
        check = self._checks.get(address)
        if check is not None:
            check.tell |= tell
            check.lease |= lease
            check.size = max(check.size, size)
            if check.timer is not None and not check.tries and now + delay < check.timer.when:
                check.timer.cancel()
                check.began = now + delay
                check.timer = self.timers.at(now + delay, partial(self._ask, check))
            return
        member = self.members.get(address)
        if member is not None and not member.by_datagram:
            self._outlet.probe(address)
            return
        check = self._checks[address] = Check(address, now + delay, size, tell)
        check.lease = lease
        if knock:
            self._knock(check)
        if delay:
            check.timer = self.timers.at(now + delay, partial(self._ask, check))
        else:
            self._ask(check, now)

    def _knock(self, check: Check) -> None:
        check.knocked = True
        self._outlet.knock(check.address)

    def _ask(self, check: Check, now: float) -> None:
        member = self.members.get(check.address)
        nonce = self._random.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        check.nonces.append(nonce)
        check.tries += 1
        self._asked[nonce] = (check, now, check.tries)
        question = Question()
        if check.lease and member is not None:
            member.period = self.period
            question = Question(b"", LEASE, member.period, member.permit)
        elif member is None or not member.instance:
            check.size = max(check.size, ASK_BYTES)
        self._outlet.send(Message(ASK, self._flags, self.port, nonce, self._instance,
                                  encode_question(question, check.size, self._sealed)),
                          check.address)
        wait = self.round_trips.wait
        waited = now - check.began
        if check.outcome == ACCEPTED:
            # Less and less often, but in time for what is decided then.
            wait = min(max(wait, min(2.0, waited)),
                       max(MIN_WAIT, (STUCK if waited < STUCK else FROZEN) - waited))
        elif member is None:
            wait *= 2 ** (check.tries - 1)
        check.timer = self.timers.at(now + wait * (1 + self._spread(0.2)),
                                     partial(self._unanswered, check))

    @property
    def _flags(self) -> int:
        return WATCHING if self.watching else 0

    def _unanswered(self, check: Check, now: float) -> None:
        """The time for the answer to a question is over."""
        if self._late:
            # It may have come while we did not run.
            check.timer = self.timers.at(now + LATE, partial(self._unanswered, check))
            return
        member = self.members.get(check.address)
        if member is None:
            if check.tries < HINT_TRIES:
                self._ask(check, now)
            else:
                self._end(check)
            return
        if not check.knocked and (check.tries > 1 or now - member.heard > self.period):
            # A peer that was heard just now is most likely only busy.
            self._knock(check)
        elif check.tries >= self.round_trips.doubtful:
            self._suspect(check, member, now)
        if self._verdict(check, now):
            self._gone(member, check, now)
            return
        if check.outcome == ACCEPTED and now - check.began > STUCK and not check.probed:
            check.probed = True
            self._outlet.probe(check.address)
        self._ask(check, now)

    def _suspect(self, check: Check, member: Member, now: float) -> None:
        """A peer may be gone: have the others find out, too, and see whether they are there."""
        if check.tell and not check.told \
                and (check.outcome != ACCEPTED or now - check.began > STUCK):
            # Its port has not accepted, or it may be frozen.
            check.told = True
            self._tell(member.entry, now)
        if not check.doubted and check.outcome not in (ACCEPTED, REFUSED) and self.watching \
                and (check.tell or now - check.began >= SILENCE):
            check.doubted = True
            self._ask_others(WITNESSES, now)

    def _ask_others(self, most: int, now: float, tell: bool = False) -> None:
        """Ask some peers that were not heard just now whether they are there."""
        others = [one for one in self.members.values()
                  if one.by_datagram and now - one.heard > 1.0
                  and one.address not in self._checks]
        for one in self._random.sample(others, min(most, len(others))):
            self._check(one.address, now, tell=tell)

    def _verdict(self, check: Check, now: float) -> bool:
        """Whether a peer that does not answer is gone."""
        if check.outcome == REFUSED:
            return check.tries >= 2
        waited = now - check.began
        if check.outcome == ACCEPTED:
            return waited >= FROZEN
        return check.tries >= self.round_trips.tries \
            and waited >= max(PATIENCE, 2 * self.round_trips.wait)

    def knocked(self, address: Address, outcome: str, now: float) -> None:
        """A connection attempt to a peer has ended."""
        check = self._checks.get(address)
        if check is None:
            return
        check.outcome = outcome
        member = self.members.get(address)
        if member is not None and outcome == REFUSED and check.tries >= 2:
            self._gone(member, check, now)

    def probed(self, address: Address, outcome: str, instance: bytes, now: float) -> None:
        """Asking an address over TCP has ended; ``instance`` is empty if no peer answered."""
        member = self.members.get(address)
        if member is None:
            return
        check = self._checks.get(address)
        if instance == member.instance:
            self._alive(member, member.flags, now)
            member.looks = 0
            if check is not None:
                # Its datagrams are blocked now.
                member.by_datagram = False
                self._end(check)
                self._reassign(now)
        elif not member.by_datagram and outcome != ACCEPTED:
            member.looks += 1
            if outcome == REFUSED or member.looks >= TCP_LOOKS:
                self._gone(member, check, now, refused=outcome == REFUSED)
            else:
                self._outlet.probe(address)

    def _end(self, check: Check) -> None:
        if check.timer is not None:
            check.timer.cancel()
        for nonce in check.nonces:
            self._asked.pop(nonce, None)
        if self._checks.get(check.address) is check:
            del self._checks[check.address]

    # ------------------------------------------------------------------ peers that are gone

    def _gone(self, member: Member, check: Optional[Check], now: float,
              refused: bool = False) -> None:
        noticed = check is not None and (check.tell or member.watched)
        tell = noticed and check is not None and not check.told
        refused |= check is not None and check.outcome == REFUSED
        self._forget(member.address)
        self._changed = now
        self._outlet.lost(member.address)
        if tell:
            self._tell(member.entry, now)
        if not refused and member.by_datagram and self.watching:
            self._vanished(member, now)
        elif refused and self.watching and noticed:
            self._ended = [when for when in self._ended if now - when < ENDED_SECONDS] + [now]
            if len(self._ended) > 1:
                self._ask_others(min(MAX_ENDED, len(self._ended)), now, tell=True)
        self._reassign(now)

    def _vanished(self, member: Member, now: float) -> None:
        """A peer has vanished: its host, or this one, may be cut off."""
        if len(self._lost) < MAX_LOST:
            self._lost[member.address] = Lost(member, now)
            self.timers.at(now + LOST_AGAIN, partial(self._is_back, member))
        if not self.members and self._alone is None:
            self._alone = self.timers.at(now + LOST_AGAIN, self._look_around)

    def _look_around(self, now: float) -> None:
        """All peers have vanished: announce and ask by broadcast, until one is there again."""
        self._alone = None
        if self.members or not self._lost:
            return
        self._outlet.hello()
        self._outlet.look_around()
        self._alone = self.timers.at(now + LOST_AGAIN, self._look_around)

    def _is_back(self, member: Member, now: float) -> None:
        lost = self._lost.get(member.address)
        if lost is None or lost.member is not member:
            return
        if now - lost.since > LOST_SECONDS:
            del self._lost[member.address]
            return
        if self._is_mine(member.instance, self._predecessor()) and len(self.members):
            self._hint(member.address, "", now, tell=True)
        self.timers.at(now + LOST_AGAIN * (1 + self._spread(0.2)),
                       partial(self._is_back, member))

    def _forget(self, address: Address) -> None:
        member = self.members.pop(address)
        check = self._checks.get(address)
        if check is not None:
            self._end(check)
        self._exchanges.pop(address, None)
        member.watched = False
        if member.timer is not None:
            member.timer.cancel()

    def _tell(self, entry: Entry, now: float, found: bool = False) -> None:
        """Have all watchers ask one for themselves; repeated where datagrams may be lost.

        :param found: whether it was found, and not missed.
        """
        self._tell_watchers(entry)
        if self.round_trips.lossy:
            for later in TELL_AGAIN:
                self.timers.at(now + later, partial(self._tell_again, entry, found))

    def _tell_again(self, entry: Entry, found: bool, _now: float) -> None:
        # One that has answered meanwhile was only slow.
        if found == (entry.address in self.members) or entry.address in self._checks:
            self._tell_watchers(entry)

    def _tell_watchers(self, entry: Entry) -> None:
        watchers = [member for member in self.members.values()
                    if member.flags & WATCHING and member.by_datagram]
        for flags, body in encode_list([entry]):
            message = Message(DOUBT, self._flags | flags, self.port, NO_PERMIT, self._instance,
                              body)
            if len(watchers) > FEW:
                self._outlet.tell_all(message)
            # Those few directly as well, in case the network carries no broadcasts.
            for member in self._random.sample(watchers, min(FEW, len(watchers))):
                self._outlet.send(message, member.address)

    # ------------------------------------------------------------------ who watches whom

    @property
    def period(self) -> float:
        """Seconds between the beats that this watcher asks for."""
        period = min(MAX_BEAT, max(MIN_BEAT, PER_PEER * len(self.members)))
        return math.ceil(10 * period) / 10  # as it is told to those that are watched

    def _reassign(self, now: float, soon: bool = True) -> None:
        """See to it that what is ours to watch is watched: soon, or together with other changes."""
        when = now + 0.01
        if not soon:
            when = max(when, self._assigned + min(0.5, REASSIGN * len(self.members)))
        if self._assigning is not None:
            if self._assigning.when <= when:
                return
            self._assigning.cancel()
        self._assigning = self.timers.at(when, self._assign)

    def _predecessor(self, before: int = 1) -> bytes:
        """The watcher before this one on the ring, or this many before it; this one if there is no
        other."""
        if not self.port:
            return self._instance
        ring = sorted([member.instance for member in self.members.values()
                       if member.flags & WATCHING and member.by_datagram])
        return ring[(bisect_left(ring, self._instance) - before) % len(ring)] if ring \
            else self._instance

    def _is_mine(self, instance: bytes, predecessor: bytes) -> bool:
        """Whether a peer is between the predecessor, that one included, and this process."""
        if predecessor < self._instance:
            return predecessor <= instance < self._instance
        return instance >= predecessor or instance < self._instance

    def _assign(self, now: float) -> None:
        """Watch what is ours to watch now, and nothing else."""
        self._assigning = None
        self._assigned = now
        predecessor = self._predecessor()
        for member in list(self.members.values()):
            mine = self.watching and self._is_mine(member.instance, predecessor)
            if mine and not member.watched:
                self._begin_to_watch(member, now)
            elif not mine and member.watched:
                self._end_watching(member)
                if self.watching:
                    # The watcher that takes over may never have listed it, if it is gone already.
                    self._check(member.address, now, tell=True)

    def _begin_to_watch(self, member: Member, now: float) -> None:
        member.watched = True
        if member.by_datagram:
            self._check(member.address, now, self._spread(0.1), lease=True)
            member.renewal = now + RENEWED * LEASE * (0.9 + self._spread(0.1))
            self._expect(member, now)
            member.timer = self.timers.at(member.deadline, partial(self._look_after, member))
        else:
            member.timer = self.timers.at(now + self._spread(TCP_LOOK),
                                          partial(self._look_again, member))

    def _end_watching(self, member: Member) -> None:
        member.watched = False
        if member.timer is not None:
            member.timer.cancel()
        if member.permit != NO_PERMIT:
            # No more beats, please.
            self._outlet.send(Message(ASK, self._flags, self.port, NO_PERMIT, self._instance,
                                      encode_question(Question(b"", 0, 0, member.permit))),
                              member.address)

    def _expect(self, member: Member, now: float) -> None:
        member.due = now + (member.period or self.period)
        member.deadline = member.due + max(GRACE, self.round_trips.wait)

    def _look_after(self, member: Member, now: float) -> None:
        """A beat is overdue, if none has come meanwhile, or beats have to be asked for again."""
        if self._late:
            member.deadline = max(member.deadline, now + LATE)
        overdue = now >= member.deadline
        if overdue or now >= member.renewal:
            self._check(member.address, now, tell=overdue, lease=True)
            member.renewal = now + RENEWED * LEASE * (0.9 + self._spread(0.1))
        if overdue:
            self._expect(member, now)
        if member.watched:
            member.timer = self.timers.at(min(member.deadline, member.renewal),
                                          partial(self._look_after, member))

    def _look_again(self, member: Member, now: float) -> None:
        """Check a peer that answers no datagrams."""
        self._outlet.probe(member.address)
        # Connections cost more than datagrams: of many peers, each is looked at less often.
        pause = max(TCP_LOOK, PER_PEER * len(self.members))
        member.timer = self.timers.at(now + pause, partial(self._look_again, member))

    def _look_at_others(self, now: float) -> None:
        """Ask those that the predecessor watches, and perhaps any other."""
        others = [member for member in self.members.values()
                  if not member.watched and member.by_datagram]
        pause = min(MAX_SECOND, max(MIN_SECOND, SECOND_PER_PEER * len(self.members)))
        before = self._predecessor(2)
        for member in others:
            if self._is_mine(member.instance, before):
                self._check(member.address, now, self._spread(pause / 4), tell=True)
        if others and self._random.random() < ANY_OTHER:
            self._check(self._random.choice(others).address, now, tell=True)
        self._safety = self.timers.at(now + pause * (0.75 + self._spread(0.25)),
                                      self._look_at_others)

    # ------------------------------------------------------------------ lists that differ

    def _differs(self, member: Member, now: float) -> None:
        """Another process lists other peers than this one."""
        if not self.watching or now - self._changed < NEWS:
            return
        after, pause = self._exchanges.get(member.address, (0.0, EXCHANGE))
        if now >= after and member.permit != NO_PERMIT:
            self._exchanges[member.address] = (now + pause * (1 + self._spread(0.5)),
                                               min(MAX_EXCHANGE, 2 * pause))
            self._send_list(member, REPLY)

    def _send_list(self, member: Member, flags: int) -> None:
        # Of link-local addresses only those of the link to the receiver mean anything to it.
        entries = [one.entry for one in self.members.values() if one.by_datagram
                   and zone_of(one.address) in ("", zone_of(member.address))]
        for more, body in encode_list(entries):
            self._outlet.send(Message(LIST, self._flags | flags | more, self.port, member.permit,
                                      self._instance, body), member.address)

    def _listed(self, message: Message, source: Address, now: float) -> None:
        """Another watcher says which peers it lists, from one address to another."""
        listed, sender = read_list(message, source), self.members.get(source)
        if listed is None or sender is None or not self.watching:
            return
        named = {source}
        for address, instance in listed.entries:
            named.add(address)
            member = self.members.get(address)
            if instance != self._instance[:4] \
                    and (member is None or member.instance[:4] != instance):
                self._hint(address, source[0], now, self._spread(0.05))
        for member in list(self.members.values()):
            if member.by_datagram and member.address not in named \
                    and listed.covers(member.address) and now - member.heard > self.period:
                self._check(member.address, now, self._spread(0.1))
        if message.flags & REPLY and listed.is_first and sender.permit != NO_PERMIT \
                and now - sender.listed >= ONE_LIST:
            sender.listed = now
            self._send_list(sender, 0)

    def _doubted(self, message: Message, source: Address, now: float) -> None:
        """Another watcher has doubts about some peers, or has found some that were lost."""
        listed, sender = read_list(message, source), self.members.get(source)
        if listed is None or sender is None or sender.instance != message.instance:
            return
        for address, instance in listed.entries[:MAX_DOUBTS]:
            member = self.members.get(address)
            if instance != self._instance[:4]:
                heard = -math.inf if member is None else member.heard
                self._hint(address, source[0], now,
                           max(0.0, heard + RECENT - now) + self._spread(0.02))
