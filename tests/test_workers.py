"""Several processes behind one port: what a supervisor does when they start, end, and are asked.

Most workers here only speak as one does, which costs no import of JAX; two tests have real ones,
with a model that needs no compilation.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from serving import LIMIT_S, ROOT, pixels

from jaxnn.errors import RunError
from service import settings, workers
from service.config import ServiceConfig
from service.pb import digits_pb2_grpc

SUPERVISE = """
import json, sys
from jaxnn.errors import JaxnnError
from service import settings, workers
from service.config import ServiceConfig
workers.PROGRAM = sys.argv[1]
workers.FIRST_PAUSE_S, workers.ANSWER_S = 0.1, 0.3
try:
    workers.supervise(ServiceConfig(port=0, metrics_port=0, workers=2, **json.loads(sys.argv[2])))
except JaxnnError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""

# Says what a worker says, and serves nothing. Its count is 10.
FAKE = """
import json, os, signal, time
def say(**what): print(json.dumps(what), flush=True)
def counts(n): say(counts={"counters": [["expired", [], n]], "histograms": [], "gauges": {}})
def note(what):
    with open(os.environ["NOTES"], "a") as file: file.write(f"{what} {os.getpid()}\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
assert "workers = 2" in json.loads(sys.stdin.readline())
note("start")
"""
SERVES = FAKE + "say(ready=1)\nfor _ in sys.stdin: counts(10)\n"

# A real one. Its version is its process, and an image of ink 200 takes it half a second.
STUB = """
sys.path.insert(0, "tests")
import os, time
from serving import first_pixel, stub_model
from service import registry, worker
def slow(images):
    time.sleep(0.5 * (images[0, 0] >= 200))
    return first_pixel(images)
registry.load_model = lambda *_, **__: stub_model(slow, version=str(os.getpid()))
sys.exit(worker.main())
"""


class Supervisor:
    """A running one, and what it and its workers have said."""

    def __init__(self, process: subprocess.Popen[str], notes: Path) -> None:
        self.process = process
        self.target = self.page = ""
        self._notes = notes

    def started(self) -> None:
        assert self.process.stdout
        for begin, name in (("metrics on ", "page"), ("listening on ", "target")):
            line = self.process.stdout.readline()
            assert line.startswith(begin), line
            setattr(self, name, line.removeprefix(begin).strip())

    def pids(self, what: str) -> list[int]:
        """The processes that have noted this, in order."""
        words = [line.split() for line in self._notes.read_text().splitlines()]
        return [int(pid) for word, pid in words if word == what]

    def count(self, name: str) -> float:
        """A number of the metrics page, whatever its labels."""
        with urllib.request.urlopen(self.page, timeout=LIMIT_S) as page:
            text = page.read().decode()
        found = re.findall(rf"^jaxnn_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def ends(self) -> int:
        return self.process.wait(LIMIT_S)


@contextmanager
def supervised(folder: Path, program: str, **settings: object) -> Iterator[Supervisor]:
    """A supervisor of two such workers, in a process of its own."""
    notes = folder / "notes"
    notes.touch()
    command = [sys.executable, "-c", SUPERVISE, program, json.dumps(settings)]
    environment = {**os.environ, "NOTES": str(notes), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True
    ) as process:
        try:
            yield Supervisor(process, notes)
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LIMIT_S / 3)
            process.kill()


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that should be so in a moment."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def listens(target: str) -> bool:
    host, port = target.rsplit(":", 1)
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def gone(pid: int) -> bool:
    """Whether a process has ended, or waits only for its parent to hear of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_counters_never_go_back_and_a_worker_comes_back(tmp_path: Path) -> None:
    with supervised(tmp_path, SERVES) as server:
        server.started()
        assert server.count("expired_total") == 20
        assert server.count("workers") == 2
        victim, _ = server.pids("start")
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.count("workers") == 1 or len(server.pids("start")) == 3, "its end")
        assert server.count("expired_total") >= 20
        until(lambda: server.count("workers") == 2, "another")
        assert server.count("expired_total") == 30  # of the dead, of the one beside it, of the new
        assert server.count("expired_total") == 30
        server.process.terminate()
        assert server.ends() == 0
        assert server.process.stderr
        assert f"worker {victim} ended with signal 9" in server.process.stderr.read()


def test_a_line_cut_by_a_kill_harms_nothing(tmp_path: Path) -> None:
    cut = (
        "say(ready=1); counts(7)\nsys.stdin.readline()\n"
        "print('{\"counts\": {\"cou', end='', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    with supervised(tmp_path, FAKE + cut) as server:
        server.started()
        assert server.count("expired_total") >= 14
        until(lambda: len(server.pids("start")) == 4, "two others")
        until(lambda: server.count("expired_total") >= 28, "their counts")


def test_a_worker_that_does_not_answer_counts_as_it_did(tmp_path: Path) -> None:
    with supervised(tmp_path, FAKE + "say(ready=1); counts(7)\ntime.sleep(60)\n") as server:
        server.started()
        assert server.count("expired_total") == 14
        assert server.count("workers") == 2


def test_a_stop_waits_for_the_workers_and_a_second_signal_for_nothing(tmp_path: Path) -> None:
    stubborn = FAKE + (
        "signal.signal(signal.SIGTERM, lambda *_: note('stop'))\n"
        "say(ready=1)\nwhile True: time.sleep(0.1)\n"
    )
    with supervised(tmp_path, stubborn) as server:
        server.started()
        server.process.send_signal(signal.SIGINT)
        until(lambda: len(server.pids("stop")) == 2, "the signal")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.ends() == 128 + signal.SIGINT
        assert all(gone(pid) for pid in server.pids("start"))


def test_a_change_reaches_those_that_have_begun_and_those_that_begin(tmp_path: Path) -> None:
    slow = FAKE + (
        "time.sleep(0.5)\n"
        "signal.signal(signal.SIGHUP, lambda *_: note('look'))\n"
        "say(ready=1)\nfor _ in sys.stdin: counts(1)\n"
    )
    with supervised(tmp_path, slow) as server:
        until(lambda: len(server.pids("start")) == 2, "two workers")
        server.process.send_signal(signal.SIGHUP)  # nobody has asked for it yet
        server.started()
        until(lambda: len(server.pids("look")) == 2, "both to look")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(server.pids("look")) == 4, "both to look again")
        assert sorted(server.pids("start")) == sorted(set(server.pids("look")))


def test_a_stop_before_they_serve_is_a_good_end(tmp_path: Path) -> None:
    with supervised(tmp_path, FAKE + "time.sleep(60)\n") as server:
        until(lambda: len(server.pids("start")) == 2, "two workers")
        server.process.terminate()
        assert server.ends() == 0
        assert server.process.stderr and server.process.stderr.read() == ""


@pytest.mark.parametrize(
    ("end", "code", "sentence"),
    [
        ("say(problem='no model here'); sys.exit(2)", 2, "no model here"),
        ("say(problem='no port here'); sys.exit(1)", 1, "no port here"),
        ("os.kill(os.getpid(), 9)", 1, "a worker ended with signal 9 before it served"),
    ],
)
def test_a_worker_that_cannot_begin_ends_the_start(
    tmp_path: Path, end: str, code: int, sentence: str
) -> None:
    one = f"try: os.mkdir(os.environ['NOTES'] + '1')\nexcept OSError: {end}\n"
    with supervised(tmp_path, FAKE + one + "say(ready=1)\ntime.sleep(60)\n") as server:
        assert server.ends() == code
        assert server.process.stderr and server.process.stderr.read() == f"{sentence}\n"
        assert all(gone(pid) for pid in server.pids("start"))


def test_one_that_cannot_begin_again_is_tried_again_ever_more_slowly(tmp_path: Path) -> None:
    again = (
        "if len(open(os.environ['NOTES']).readlines()) > 2:\n"
        "    say(problem='the model is gone'); sys.exit(2)\n"
    )
    with supervised(tmp_path, FAKE + again + "say(ready=1)\nfor _ in sys.stdin: counts(10)\n") as s:
        s.started()
        os.kill(s.pids("start")[0], signal.SIGKILL)
        until(lambda: len(s.pids("start")) == 5, "three attempts")
        s.process.terminate()
        assert s.ends() == 0
        assert s.process.stderr
        said = s.process.stderr.read()
        assert re.findall(r"another starts in (\S+) s", said)[:3] == ["0.1", "0.2", "0.4"]
        assert "exit code 2 (the model is gone)" in said


@pytest.mark.parametrize("shared", [False, True])
def test_a_taken_port_is_one_sentence(shared: bool) -> None:
    """Also one that another would share: its callers are not ours."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RunError, match=rf"cannot listen on 127.0.0.1:{port} \(Address already"):
            workers.supervise(ServiceConfig(port=port, workers=2))


def test_the_port_of_a_server_that_has_just_ended_can_be_had() -> None:
    """Its connections linger a minute; a restart must not wait for them."""
    with socket.socket() as before:
        before.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        before.bind(("127.0.0.1", 0))
        before.listen()
        port = before.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            before.accept()[0].close()  # this side closes first, and so lingers
    assert before.fileno() == -1
    with workers.bound(ServiceConfig(port=port, workers=2)) as again:
        assert again.getsockname()[1] == port


class Caller:
    """A connection of its own."""

    def __init__(self, target: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(target, options=options)
        self.stub = digits_pb2_grpc.DigitClassifierStub(self.channel)
        self.worker = int(self.stub.Classify(pixels(1), timeout=LIMIT_S).model_version)

    def begin(self) -> grpc.Future:
        """A request that takes half a second."""
        return self.stub.Classify.future(pixels(203), timeout=LIMIT_S)


def test_two_workers_share_a_port_and_the_death_of_one_is_its_own(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.touch()
    callers: list[Caller] = []
    with supervised(tmp_path, STUB, model=None, inline_images=0) as server:
        server.started()

        def spread() -> bool:
            """Enough callers that each worker has two."""
            callers.append(Caller(server.target))
            found = [caller.worker for caller in callers]
            return len(set(found)) == 2 and min(map(found.count, set(found))) >= 2

        until(spread, "two callers of each")
        asked = len(callers)
        assert server.count("requests_total") == asked
        victim = callers[0].worker
        calls = [(caller.worker, caller.begin()) for caller in callers]
        time.sleep(0.2)
        os.kill(victim, signal.SIGKILL)
        for worker, call in calls:
            wanted = grpc.StatusCode.UNAVAILABLE if worker == victim else grpc.StatusCode.OK
            assert call.code() is wanted
        others = sum(worker != victim for worker, _ in calls)
        assert server.count("requests_total") == asked + others
        until(lambda: server.count("workers") == 2, "another")
        until(lambda: Caller(server.target).worker not in {w for w, _ in calls}, "its answer")
        assert server.count("requests_total") > asked + others

        # A stop lets what is in flight finish.
        last = [Caller(server.target).begin() for _ in range(4)]
        time.sleep(0.2)
        server.process.terminate()
        assert [call.code() for call in last] == [grpc.StatusCode.OK] * 4
        assert server.ends() == 0
        assert not listens(server.target)


def test_a_worker_that_nobody_is_left_to_ask_answers_what_it_has_and_ends() -> None:
    """What it sees of the death of its supervisor is the end of its input."""
    command = [sys.executable, "-c", "import sys" + STUB]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, stderr=-1, text=True) as worker:
        try:
            assert worker.stdin and worker.stdout and worker.stderr
            config = ServiceConfig(port=0, workers=2, inline_images=0)
            print(json.dumps(settings.printed(config)), file=worker.stdin, flush=True)
            port = json.loads(worker.stdout.readline())["ready"]
            call = Caller(f"127.0.0.1:{port}").begin()
            time.sleep(0.2)
            worker.stdin.close()
            worker.stdout.close()
            assert call.code() is grpc.StatusCode.OK
            assert worker.wait(LIMIT_S) == 0
            said = worker.stderr.read().splitlines()
            assert [line.split()[2] for line in said] == ["INFO", "INFO"]  # a model, an address
        finally:
            worker.kill()
