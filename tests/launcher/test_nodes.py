"""Several machines: who is reached where, who is waited for, and two real network namespaces."""

import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import assert_same_run, rows
from launched import command, training, wait_until

from research import launch
from research.errors import UsageError
from research.launcher import nodes
from research.launcher.addresses import interface_of, reached_at
from research.launcher.nodes import Meeting, NotGathered, refuse_disagreement
from research.runs.run import Run
from research.runs.status import recorded


@pytest.fixture
def place() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


# -- addresses ----------------------------------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch):
    """``network(names, own, ways)``: where names lead, this machine's addresses, and its address on each way."""

    def make(names, own, ways):
        def addresses(host, port, **_):
            if host not in names and not host[0].isdigit():
                raise socket.gaierror(-2, "Name or service not known")
            return [(0, 0, 0, "", (names.get(host, host), port))]

        interfaces = {f"net{i}": [SimpleNamespace(address=each)] for i, each in enumerate(["127.0.0.1", *own])}
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
        monkeypatch.setattr("research.launcher.addresses.way_out", lambda address: ways.get(address, ""))

    return make


@pytest.mark.parametrize(
    ("rendezvous", "names", "own", "ways", "found"),
    [
        ("far:1", {"far": "10.0.0.1"}, ["10.0.0.2"], {"10.0.0.1": "10.0.0.2"}, (False, "10.0.0.2")),
        ("10.0.0.2:1", {}, ["10.0.0.2", "172.17.0.1"], {"10.0.0.2": "10.0.0.2"}, (True, "10.0.0.2")),
        # Debian gives a machine's own name to 127.0.1.1, containers give it to 127.0.0.1
        ("me:1", {"me": "127.0.1.1"}, ["10.0.0.2", "172.17.0.1"], {"192.0.2.1": "10.0.0.2"}, (True, "10.0.0.2")),
        ("me:1", {"me": "127.0.1.1"}, ["10.0.0.2"], {}, (True, "10.0.0.2")),
        ("127.0.0.2:1", {}, ["10.0.0.2"], {"192.0.2.1": "10.0.0.2"}, (True, "127.0.0.2")),
        ("localhost:1", {"localhost": "127.0.0.1"}, ["10.0.0.2"], {}, (True, "127.0.0.1")),
    ],
)
def test_a_machine_knows_where_others_reach_it(network, rendezvous, names, own, ways, found):
    network(names, own, ways)
    assert reached_at(rendezvous) == found


@pytest.mark.parametrize(
    ("rendezvous", "own", "told"),
    [
        ("nowhere:1", ["10.0.0.2"], "nowhere is not known on this machine"),
        ("10.9.0.1:1", ["10.0.0.2"], "there is no way from this machine to 10.9.0.1"),
        ("me:1", [], "me is loopback here, and this machine has no other address; give an address"),
        ("me:1", ["10.0.0.2", "10.1.0.2"], "and this machine has the addresses 10.0.0.2, 10.1.0.2; give an address"),
    ],
)
def test_addresses_that_cannot_be_told_are_refused(network, rendezvous, own, told):
    network({"me": "127.0.1.1"}, own, {})
    with pytest.raises(UsageError, match=told):
        reached_at(rendezvous)


def test_gloo_takes_the_interface_of_the_address_unless_the_user_named_one(network, monkeypatch):
    network({}, ["10.0.0.2"], {})
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert interface_of("10.0.0.2") == {"GLOO_SOCKET_IFNAME": "net1"}
    assert interface_of("127.0.0.2") == {"GLOO_SOCKET_IFNAME": "net0"}
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert interface_of("10.0.0.2") == {"GLOO_SOCKET_IFNAME": "ib0"}


# -- meetings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def come(tiny, place, monkeypatch):
    """``come(name, nodes)``: a launcher that joins on this machine, in a thread."""
    monkeypatch.setattr(nodes, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(nodes, "SILENT_SECONDS", 0.5)
    pool, meetings = ThreadPoolExecutor(8), []

    def join(name, nodes=2, minutes=1.0, **agreed):
        run = SimpleNamespace(
            name="run", config=tiny(batch_size=96, nodes=nodes, rendezvous=place, join_minutes=minutes)
        )
        said = []
        card = {"name": name, "agreed": {"loader": "memory"} | agreed}
        meeting = Meeting(run, card, True, SimpleNamespace(asked=None), said.append)
        meetings.append(meeting)
        return SimpleNamespace(joined=pool.submit(meeting.join), said=said, meeting=meeting)

    yield join
    for meeting in meetings:
        meeting.interruption.asked = 0.0
    pool.shutdown()
    for meeting in meetings:
        meeting.close()


def names(node) -> list[str]:
    return [card["name"] for card in node.joined.result(20)]


def says(node, text: str) -> None:
    end = time.monotonic() + 20
    while not any(text in line for line in node.said):
        assert time.monotonic() < end, node.said
        time.sleep(0.01)


def stop(node) -> None:
    node.meeting.interruption.asked = 0.0
    with pytest.raises(KeyboardInterrupt):
        node.joined.result(20)
    node.meeting.close()


def test_nodes_say_who_is_waited_for_and_begin_together(come):
    first = come("a", nodes=3)
    says(first, "1 of 3 nodes have joined at 127.0.0.1")
    second = come("b", nodes=3)
    says(first, "2 of 3 nodes have joined at 127.0.0.1")
    says(second, "(a, b); waiting for the others")
    third = come("c", nodes=3)
    assert names(first) == names(second) == names(third) == ["a", "b", "c"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_node_that_went_away_while_waiting_is_not_counted(come, killed):
    first = come("a", nodes=3)
    says(first, "1 of 3")  # and keeps the store
    gone = come("b", nodes=3)
    says(gone, "(a, b)")
    if killed:
        gone.meeting.close = lambda: None
    stop(gone)
    if killed:
        first.said.clear()
        says(first, "1 of 3")
    third, fourth = come("c", nodes=3), come("d", nodes=3)
    assert sorted(names(first)) == sorted(names(third)) == sorted(names(fourth)) == ["a", "c", "d"]


def test_a_node_that_comes_while_the_others_are_at_work_waits_for_their_next_session(come):
    first = come("a")
    says(first, "1 of 2")
    second = come("b")
    assert sorted(names(first)) == sorted(names(second)) == ["a", "b"]
    early = come("b again")
    says(early, "have begun without this one")
    for each in (first, second):
        each.meeting.close()
    again = come("a again")
    assert sorted(names(early)) == sorted(names(again)) == ["a again", "b again"]


def test_a_session_is_joined_again_when_who_kept_it_is_gone(come):
    first = come("a", nodes=3)
    says(first, "1 of 3")
    second = come("b", nodes=3)
    says(second, "(a, b)")
    stop(first)
    third, fourth = come("c", nodes=3), come("d", nodes=3)
    assert sorted(names(second)) == sorted(names(third)) == sorted(names(fourth)) == ["b", "c", "d"]


def test_waiting_ends_with_the_reason_after_a_settable_time(tiny, place, tmp_path):
    told = rf"1 of 2 nodes have joined at {place} \(.* \(127.0.0.1\)\), and no more came within join_minutes=0.02"
    with pytest.raises(NotGathered, match=told):
        launch(tiny(nodes=2, rendezvous=place, join_minutes=0.02))
    assert not list((tmp_path / "runs").iterdir()), "nothing had begun"


def test_nodes_that_would_compute_different_things_are_refused():
    cards = [{"name": name, "agreed": {"loader": loader}} for name, loader in (("a", "memory"), ("b", "ffcv"))]
    refuse_disagreement([cards[0], cards[0]])
    with pytest.raises(UsageError, match="^loader=ffcv on b, memory on a: all nodes need the same$"):
        refuse_disagreement(cards)


@pytest.mark.slow
def test_nodes_that_share_no_folder_stop_together_and_do_not_go_on_apart(tiny, place, tmp_path):
    """A signal to one of two; then the same commands again, of which only one has a checkpoint."""
    configs = [
        tiny(name="n", nodes=2, rendezvous=place, epochs=400, log_interval=11, runs=str(tmp_path / letter))
        for letter in "ab"
    ]
    runs = [Run.create(config) for config in configs]

    def start():
        return [subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True) for config in configs]

    def ends(processes) -> list[str]:
        try:
            return [process.communicate(timeout=150)[1].splitlines()[-1] for process in processes]
        finally:
            for process in processes:
                process.kill()

    both = start()
    wait_until(lambda: any(run.paths.metrics.exists() and len(rows(run)) > 3 for run in runs), seconds=150)
    both[0].terminate()
    assert ends(both) == ["KeyboardInterrupt: run n stopped; the same command continues it"] * 2
    assert [recorded(run.dir)["status"] for run in runs] == ["interrupted"] * 2
    told = ends(start())
    assert all("run n cannot go on: rank 0 on" in line and "share the folder of runs" in line for line in told)


# -- two machines -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_machines(tmp_path):
    """Words before a command that start it on ``node-a`` or on ``node-b``: network namespaces, joined by a cable.

    As in containers, its own name leads either to loopback.
    """

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    spaces = {letter: f"research-{os.getpid()}-{letter}" for letter in "ab"}
    enter = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
    words = {}
    try:
        for space in spaces.values():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", spaces["a"], "type", "veth", "peer", "name", "cable", "netns", spaces["b"])
        others = {"a": "10.99.0.2 node-b", "b": "10.99.0.1 node-a"}
        for number, (letter, space) in enumerate(spaces.items(), start=1):
            ip("-n", space, "address", "add", f"10.99.0.{number}/24", "dev", "cable")
            ip("-n", space, "link", "set", "cable", "up")
            hosts = tmp_path / f"hosts of {letter}"
            hosts.write_text(f"127.0.0.1 localhost node-{letter}\n{others[letter]}\n")
            start = ["ip", "netns", "exec", space, "unshare", "--mount", "--uts", "sh", "-c", enter, "sh"]
            words[letter] = [*start, str(hosts), f"node-{letter}"]
            subprocess.run([*words[letter], "true"], check=True, capture_output=True, text=True)
        yield words["a"], words["b"]
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
    finally:
        for space in spaces.values():
            with suppress(OSError):
                subprocess.run(["ip", "netns", "delete", space], capture_output=True)


@pytest.mark.slow
def test_two_machines_train_one_network_through_the_loss_of_a_worker(tiny, two_machines, in_workers, tmp_path):
    in_workers(
        """
        import torch
        from research.training import worker
        def keeping(run, fit=worker.fit):
            torch.save(fit(run).model.state_dict(), run.dir / f"rank{run.rank}.pt")
        worker.fit = keeping
        """
    )
    given = {"epochs": 40, "log_interval": 11, "checkpoint_minutes": 0}
    config = tiny(name="far", nodes=2, rendezvous="node-a:29400", **given)
    run = Run.create(config)
    ends = []
    try:
        with open(tmp_path / "a", "w") as screen:
            ends.append(subprocess.Popen([*two_machines[0], *command(config)], stdout=screen))
        wait_until(lambda: "1 of 2 nodes have joined at node-a:29400 (node-a" in (tmp_path / "a").read_text())
        ends.append(subprocess.Popen([*two_machines[1], *command(config)]))
        wait_until(lambda: list(run.paths.checkpoints.glob("0*.pt")), seconds=150)
        there = {process.pid for process in psutil.Process(ends[1].pid).children(recursive=True)}
        next(process for process in training(run) if process.pid in there).kill()
        assert [end.wait(200) for end in ends] == [0, 0]
    finally:
        for end in ends:
            end.kill()
    assert len(json.loads(run.paths.environment.read_text())) == 2, "two sessions"
    first, second = (torch.load(run.dir / f"rank{rank}.pt") for rank in range(2))
    whole = launch(tiny(name="near", processes=2, **given))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same_run(whole, run)
