"""Workers on Ray: over two nodes, which may go; and what is said where there is no such Ray."""

from __future__ import annotations

import socket
import sys
import threading
import time
from importlib.util import find_spec
from typing import Any

import pytest

from merging.errors import WorkersError
from merging.evaluation.workers import cluster, reaching
from merging.evaluation.workers.on_ray import OnRay
from tests.evaluation.workers.asking import asked, lost

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (extra dev-full)")
ECHO = "tests.evaluation.workers.answering:Echo"


@pytest.mark.slow
def test_workers_on_two_nodes(ray_nodes: Any, capfd: pytest.CaptureFixture[str]) -> None:
    workers = OnRay(None, ECHO, ray_nodes.address, environment=lambda number: {"OWN": str(number)})
    try:
        assert workers.count == 2
        for count, gpus, reason in ((3, False, "2 CPUs, 3 workers"), (1, True, "0 GPUs, 1 worker")):
            with pytest.raises(WorkersError, match=rf"^the Ray at {ray_nodes.address} has {reason}"):
                OnRay(count, ECHO, ray_nodes.address, gpus=gpus)
        with pytest.raises(WorkersError, match=rf"^this process is connected to the Ray at {ray_nodes.address}, and"):
            OnRay(1, ECHO, "127.0.0.1:6379")
        workers.start(lambda number: b"made of %d" % number)
        for number in range(2):
            for word in (b"who", b"variable OWN", b"count 3", b"large 3000000", b"node"):
                workers.send(number, word)
        nodes = []
        for number in range(2):
            [[who], [own], counted, [large], [node]] = asked(workers, number, 5)
            assert workers.ready(number)
            assert who == b"made of %d %s 1" % (number, workers.place(number).rpartition(" ")[2].encode())
            assert (own, counted, large) == (b"%d" % number, [b"0", b"1", b"2"], bytes(3_000_000))
            nodes.append(node.decode())
        assert len(set(nodes)) == 2

        workers.send(0, b"wait")
        time.sleep(0.1)
        workers.tell(0, b"enough")
        assert asked(workers, 0) == [[b"waiting", b"enough"]]

        workers.send(0, b"raise no such thing")
        assert lost(workers, 0) == ([], "ValueError: no such thing")
        workers.restart(0)
        workers.send(0, b"leave 3")
        workers.send(0, b"never answered")
        assert lost(workers, 0) == ([], "its process has died")
        workers.send(0, b"to nobody")
        workers.restart(0)
        workers.send(0, b"who")
        assert asked(workers, 0)[0][0].startswith(b"made of 0 ")

        (gone,) = ray_nodes.worker_nodes
        assert workers._cluster.ray.get_runtime_context().get_node_id() != gone.node_id, "as it may, up to Ray 2.20"
        away = nodes.index(gone.node_id)
        workers.send(away, b"sleep 100")
        ray_nodes.remove_node(gone, allow_graceful=False)
        assert lost(workers, away) in [([], "its node has died"), ([], "it cannot be reached any more")]
        workers.restart(away)
        workers.send(away, b"node")
        workers.send(1 - away, b"here")
        assert asked(workers, 1 - away) == [[b"here"]]
        assert not workers.ready(away)
        assert workers.place(away) == "waiting for room in the cluster"
        with cluster.same_signals():
            new = ray_nodes.add_node(num_cpus=1, object_store_memory=80 << 20)
        assert asked(workers, away) == [[new.node_id.encode()]]
        workers.send(0, b"sleep 100")
        began = time.monotonic()
        workers.close()
        assert time.monotonic() - began < 5
        with pytest.raises(WorkersError, match=r"^this process has left the Ray that its workers run on"):
            workers.receive(1)
    finally:
        workers.close()
    assert capfd.readouterr() == ("", "")


def test_where_there_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkersError, match=r"^Ray is not installed; install it with: pip install 'merging\[ray\]'$"):
        OnRay(2, ECHO)


@needs_ray
def test_where_ray_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "version", lambda name: "2.9.3")
    with pytest.raises(WorkersError, match=r"^Ray 2.9.3 is installed, 2.20 is needed: pip install 'merging\[ray\]'$"):
        OnRay(2, ECHO)


@needs_ray
@pytest.mark.parametrize("address", ["ray://head:10001", "head", ":6379", "head:", "head:0", "head:65536", "head:x"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(WorkersError, match=rf"^'{address}' is not the address of a Ray: HOST:PORT"):
        OnRay(2, ECHO, address)


@needs_ray
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "nobody answers at ADDRESS within 0.2 s: no Ray is there"),
        (b"", "what answers at ADDRESS is no Ray"),
        (b"SSH-2.0-OpenSSH_9.6", "what answers at ADDRESS is no Ray"),
        (b"HTTP/1.1 400 Bad Request", "what answers at ADDRESS is no Ray"),
    ],
)
def test_somebody_else_at_the_address(answer: bytes | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            line, _ = server.accept()
            with line:
                if answer:
                    line.sendall(answer)
                if answer is None:
                    line.recv(1000)
                    line.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(WorkersError) as refused:
            OnRay(2, ECHO, address)
        thread.join()
    assert str(refused.value) == reason.replace("ADDRESS", address)


@needs_ray
def test_nobody_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(WorkersError, match=rf"^no Ray can be reached at 127.0.0.1:{port}: Connection refused$"):
        OnRay(2, ECHO, f"127.0.0.1:{port}")
    with pytest.raises(WorkersError, match=r"^no Ray can be reached at nowhere.invalid:6379: .* not known$"):
        OnRay(2, ECHO, "nowhere.invalid:6379")


def test_a_ray_of_another_version() -> None:
    """As Ray 2.60 says it; 2.20 does so in the same words."""
    said = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.20.0\n    Python: 3.11.7\n"
        "This process on node 192.0.2.2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    assert reaching.refusal("RuntimeError", said, "head:6379") == (
        "the Ray at head:6379 is 2.20.0 with Python 3.11.7, here is 2.60.0 with Python 3.11.7; install ray==2.20.0 here"
    )
    assert reaching.refusal("RuntimeError", said.replace("2.60", "2.20").replace("3.11.7", "3.12.1", 1), "auto") == (
        "the Ray at auto is 2.20.0 with Python 3.12.1, here is 2.20.0 with Python 3.11.7; use Python 3.12.1 here"
    )


@needs_ray
def test_something_else_that_speaks_as_ray_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It greets, and then says nothing: a port of Ray's that is not the right one."""
    monkeypatch.setattr(reaching, "TRIAL", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            line, _ = server.accept()
            with line:
                line.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                line.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(WorkersError, match=rf"^no Ray answers at {address} within 0.3 s: name its head, on a"):
            OnRay(2, ECHO, address)
        thread.join()
