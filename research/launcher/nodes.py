"""Several machines: they find each other before their processes start, and say on screen who is waited for.

torchelastic has its own rendezvous, which is silent, believes that a machine's name leads to its address, and takes a
node that comes too early for one of the session that is just ending. So launchers meet first, in the store that the
rendezvous then uses: the launcher of the machine that ``rendezvous`` names keeps it, for one session at a time.
"""

from __future__ import annotations

import json
import platform
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from research.errors import Failure, UsageError
from research.launcher.addresses import host_and_port, interface_of, reached_at
from research.processes import LOCAL_ADDRESS, Interruption

if TYPE_CHECKING:
    from torch.distributed import TCPStore

    from research.resources import Resources
    from research.runs.run import Run

POLL_SECONDS = 0.5
SILENT_SECONDS = 10.0  # a node that has not been heard for so long has gone
LEAVE_SECONDS = 5.0  # that the store is kept for the others, at the end of a session


class NotGathered(Failure):
    """The nodes of a run did not come together in time; the message says who was there."""


class Late(Exception):
    """The nodes that are together now have begun without this one."""


@contextmanager
def gathered(run: Run, resources: Resources, interruption: Interruption, say: Callable) -> Iterator[dict[str, str]]:
    """While all nodes of ``run`` are together: what the processes here find in their environment, nothing on one node.

    Raises:
        UsageError: the nodes do not agree, or this one does not find its way to ``rendezvous``.
        NotGathered: some did not come within ``join_minutes``.
    """
    if run.config.nodes == 1:
        yield {}
        return
    here, address = reached_at(run.config.rendezvous)
    agreed = {"identity": run.config.identity, "processes": run.config.processes, "loader": resources.loader}
    card = {"name": f"{platform.node()} ({address})", "agreed": agreed}
    meeting = Meeting(run, card, here, interruption, say)
    try:
        refuse_disagreement(meeting.join())
        yield {LOCAL_ADDRESS: address} | interface_of(address)
        meeting.leave()
    finally:
        meeting.close()


def refuse_disagreement(cards: Sequence[dict[str, Any]]) -> None:
    """Raise UsageError, on every node the same, when not all nodes would compute the same."""
    first = cards[0]
    lines = [
        f"{name}={card['agreed'][name]} on {card['name']}, {value} on {first['name']}: all nodes need the same"
        for card in cards[1:]
        for name, value in first["agreed"].items()
        if card["agreed"][name] != value
    ]
    if lines:
        raise UsageError("\n".join(lines))


class Meeting:
    """One session of the nodes of ``run``: ``card`` says who this one is, ``here`` whether ``rendezvous`` names it.

    The store is held by this object alone, so that :meth:`close` frees the port whatever an exception holds on to.
    """

    def __init__(self, run: Run, card: dict[str, Any], here: bool, interruption: Interruption, say: Callable):
        self.run, self.card, self.here, self.interruption, self.say = run, card, here, interruption, say
        self.store: TCPStore | None = None
        self.keeper = False  # of the store
        self.me = uuid.uuid4().hex
        self.heard: dict[str, tuple[int, float]] = {}  # beats of a node, and when they last changed
        self.started, self.said = time.monotonic(), ""

    def join(self) -> list[dict[str, Any]]:
        """Wait for all nodes; their cards, in the order in which they came."""
        while True:
            try:
                self.open()
                return self.attend()
            except Late:
                self.close()
                self.wait([self.card["name"]], "; those that are there have begun without this one")
            except (OSError, RuntimeError) as error:
                if isinstance(error, NotGathered):
                    raise
                self.close()  # nobody keeps the store yet, or who did has gone
                self.wait([self.card["name"]], "; nobody answers there")

    def open(self) -> None:
        """Keep the store, or connect to it: another launcher on this machine may keep it.

        Raises:
            OSError: nobody answers.
            RuntimeError: who answers is not such a store.
        """
        from torch.distributed import TCPStore  # torch takes seconds

        place = host_and_port(self.run.config.rendezvous)
        settings = {"wait_for_workers": False, "timeout": timedelta(seconds=SILENT_SECONDS)}
        if self.here:
            with suppress(RuntimeError):
                self.store, self.keeper = TCPStore(*place, is_master=True, **settings), True
                return
        socket.create_connection(place, SILENT_SECONDS).close()  # torch would complain on screen
        self.store, self.keeper = TCPStore(*place, is_master=False, **settings), False

    def attend(self) -> list[dict[str, Any]]:
        """The cards of all nodes, once they are in the store; its keeper decides who they are.

        Raises:
            Late: they were complete before this one came.
            RuntimeError: the store has gone.
        """
        self.store.set(f"nodes/{self.me}", json.dumps(self.card))
        self.store.set(f"nodes/number {self.store.add('nodes/came', 1)}", self.me)
        while True:
            self.store.add(f"nodes/beats of {self.me}", 1)
            if self.keeper and not self.store.check(["nodes/all"]):
                present = self.present()
                self.store.set("nodes/here", json.dumps(present))
                if len(present) >= self.run.config.nodes:
                    self.store.set("nodes/all", json.dumps(present[: self.run.config.nodes]))
            if complete := self.read("nodes/all"):
                if self.me not in complete:
                    raise Late
                return [self.read(f"nodes/{each}") for each in complete]
            self.wait([self.read(f"nodes/{each}")["name"] for each in self.read("nodes/here") or [self.me]])

    def present(self) -> list[str]:
        """Who has joined and was heard lately, in the order in which they came."""
        now, present = time.monotonic(), []
        for number in range(1, self.store.add("nodes/came", 0) + 1):
            if not self.store.check([f"nodes/number {number}"]):
                continue  # just coming
            each = self.store.get(f"nodes/number {number}").decode()
            beats = self.store.add(f"nodes/beats of {each}", 0)
            if self.heard.get(each, (-1, now))[0] != beats:
                self.heard[each] = (beats, now)
            if now - self.heard[each][1] < SILENT_SECONDS and not self.store.check([f"nodes/gone {each}"]):
                present.append(each)
        return present

    def read(self, key: str) -> Any:
        """What is in the store under ``key``, from JSON; None where nothing is."""
        return json.loads(self.store.get(key)) if self.store.check([key]) else None

    def wait(self, names: Sequence[str], why: str = "") -> None:
        """Say who has joined, when that has changed; wait a little, or raise when it was long enough or given up."""
        config = self.run.config
        if self.interruption.asked is not None:
            raise KeyboardInterrupt
        text = f"{len(names)} of {config.nodes} nodes have joined at {config.rendezvous} ({', '.join(names)}){why}"
        if config.join_minutes and time.monotonic() - self.started > 60 * config.join_minutes:
            raise NotGathered(f"{self.run.name}: {text}, and no more came within join_minutes={config.join_minutes:g}")
        if text != self.said:
            self.say(f"{self.run.name}: {text}; waiting for the others")
            self.said = text
        time.sleep(POLL_SECONDS)

    def leave(self) -> None:
        """Say that the processes of this node have ended; the keeper lets the others end theirs first."""
        end = time.monotonic() + LEAVE_SECONDS
        with suppress(RuntimeError):
            left = self.store.add("nodes/left", 1)
            while self.keeper and left < self.run.config.nodes and time.monotonic() < end:
                time.sleep(POLL_SECONDS / 10)
                left = self.store.add("nodes/left", 0)

    def close(self) -> None:
        """Sign off and let go of the store; its keeper ends it."""
        if self.store:
            with suppress(RuntimeError):
                self.store.set(f"nodes/gone {self.me}", "")
        self.store = None
