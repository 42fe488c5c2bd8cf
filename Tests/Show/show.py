"""Shared by the proofs of this folder: starts the real programs, talks to them over real sockets, prints verdicts.

A proof prints one line per figure: what was measured, the floor it is held against, PASS or FAIL. It fails as well when
its workload did not happen. CM_BIN names the folder of the release binaries, CM_SHOW is `full` or `small`.
"""

import atexit
import http.client
import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

BIN = os.environ.get("CM_BIN") or ".build/release"
SMALL = os.environ.get("CM_SHOW", "full") == "small"
# These two are for the proofs alone: a core would warn of variables that it does not know.
DIST = os.environ.pop("CM_DIST", None)
_venv = os.environ.pop("CM_VENV", None)

_processes = []
_folders = []
_failures = []


def program(name):
    return os.path.join(BIN, name)


def folder(prefix="cm-show-"):
    path = tempfile.mkdtemp(prefix=prefix)
    _folders.append(path)
    return path


def _held():
    """Pids of the holders of commands and terminals below this proof's folders, and of what they run: the agents that
    started them are gone, so nobody else ends them."""
    parents, held = {}, set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{name}/cmdline") as file:
                words = file.read().split("\0")
        except OSError:
            continue
        if words[1:2] == ["hold"] and any(words[2].startswith(path + "/") for path in _folders):
            held.add(int(name))
    for _ in range(len(parents)):
        more = {pid for pid, parent in parents.items() if parent in held} - held
        if not more:
            break
        held |= more
    return held


def _clean():
    for process in reversed(_processes):
        if process.poll() is None:
            process.kill()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                pass
    for pid in _held():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for path in _folders:
        shutil.rmtree(path, ignore_errors=True)


atexit.register(_clean)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def start(arguments, **options):
    """A child that is killed, by its pid, when this script ends."""
    process = subprocess.Popen(arguments, **options)
    _processes.append(process)
    return process


def environment(*packages):
    """Runs the calling script again inside an environment of its own that has these packages of PyPI, once."""
    if _venv:
        return
    venv = folder("cm-venv-")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = os.path.join(venv, "bin", "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
                   check=True, timeout=300)
    sys.exit(subprocess.run([python, os.path.abspath(sys.argv[0]), *sys.argv[1:]],
                            env={**os.environ, "CM_VENV": venv, **({"CM_DIST": DIST} if DIST else {})}).returncode)


class Events:
    """The JSON lines that a program prints, as they come."""

    def __init__(self, process):
        self.lines = queue.Queue()
        self.process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            try:
                self.lines.put(json.loads(line))
            except ValueError:
                pass
        self.lines.put(None)

    def wait(self, name, seconds=60):
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no event {name} within {seconds} s")
            try:
                event = self.lines.get(timeout=left)
            except queue.Empty:
                continue
            if event is None:
                raise RuntimeError(f"the program ended before its event {name}")
            if event.get("event") == name:
                return event


class Core:
    """One core in a data directory that outlives restarts."""

    def __init__(self, flags=(), data=None, environment=None, listen="127.0.0.1:0", under=()):
        self.data = data or os.path.join(folder(), "core")
        self.under = list(under)  # A program that runs the core: its words go before the core's.
        self.flags = list(flags)
        self.environment = environment or {}
        self.listen = listen
        self.process = None
        self.log = None

    def start(self, environment=None, seconds=60):
        os.makedirs(os.path.dirname(self.data), exist_ok=True)
        self.log = open(self.data + ".log", "ab")
        self.process = start(
            [*self.under, program("client-manager"), "serve", "--data-dir", self.data, "--listen", self.listen, *self.flags],
            stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, **self.environment, **(environment or {})})
        self.events = Events(self.process)
        begin = time.monotonic()
        ready = self.events.wait("ready", seconds)
        self.ready_seconds = time.monotonic() - begin
        self.url, self.fingerprint, self.pid = ready["url"], ready["fingerprint"], ready["pid"]
        self.host, port = self.url.split("://")[1].rsplit(":", 1)
        self.port = int(port)
        self.listen = f"127.0.0.1:{self.port}"  # A restart comes back where the agents look for it.
        with open(os.path.join(self.data, "admin-token")) as file:
            self.token = file.read().strip()
        return self

    def stop(self, how=signal.SIGTERM, seconds=60):
        os.kill(self.pid, how)
        self.process.wait(seconds)

    def connection(self, timeout=60):
        if self.url.startswith("https"):
            # The chain ends in the core's own authority, which lies beside its data.
            context = ssl.create_default_context(cafile=os.path.join(self.data, "keys", "ca.pem"))
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def call(self, method, path, body=None, token=None, headers=None, connection=None, timeout=60):
        """(status, headers, parsed JSON or text)"""
        own = connection is None
        connection = connection or self.connection(timeout)
        fields = {"Authorization": "Bearer " + (token or self.token), **(headers or {})}
        data = None
        if body is not None:
            data = body if isinstance(body, (bytes, str)) else json.dumps(body)
            fields.setdefault("Content-Type", "application/json")
        connection.request(method, path, data, fields)
        answer = connection.getresponse()
        text = answer.read()
        if own:
            connection.close()
        try:
            parsed = json.loads(text) if text else None
        except ValueError:
            parsed = text.decode("utf-8", "replace")
        return answer.status, dict(answer.headers.items()), parsed

    def get(self, path, **options):
        status, _, value = self.call("GET", path, **options)
        if status != 200:
            raise RuntimeError(f"GET {path}: {status} {value}")
        return value

    def types(self, pattern, status="200"):
        """The types that the API's document gives for what a GET answers."""
        return list(self.get("/openapi.json")["paths"][pattern]["get"]["responses"][status].get("content", {}))

    def post(self, path, body, expect=(200, 201, 202), **options):
        status, _, value = self.call("POST", path, body, **options)
        if status not in expect:
            raise RuntimeError(f"POST {path}: {status} {value}")
        return value

    def enrollment_token(self, uses, **labels):
        return self.post("/api/v1/enrollment-tokens", {"uses": uses, "ttl_s": 3600, "labels": labels})["token"]

    def online(self):
        for line in str(self.get("/metrics")).splitlines():
            if line.startswith('client_manager_clients{state="online"}'):
                return int(float(line.split()[-1]))
        raise RuntimeError("/metrics has no client_manager_clients{state=\"online\"}")

    def wait_online(self, count, seconds):
        """Seconds until that many are online; polls, bounded."""
        begin = time.monotonic()
        while True:
            seen = self.online()
            if seen >= count:
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                raise TimeoutError(f"{seen} of {count} clients online after {seconds} s")
            time.sleep(0.05)

    def rss_anon(self):
        return status_kib(self.pid, "RssAnon") * 1024


class Agent:
    def __init__(self, core, token=None, data=None, environment=None, flags=(), under=()):
        self.core = core
        self.under = list(under)
        self.data = data or os.path.join(folder(), "agent")
        self.environment = environment or {}
        self.flags = list(flags)
        self.token = token
        self.process = None

    def start(self, environment=None, wait=True, seconds=60):
        os.makedirs(os.path.dirname(self.data), exist_ok=True)
        log = open(self.data + ".log", "ab")
        arguments = [*self.under, program("cm-agent"), "run", "--server", self.core.url, "--data-dir", self.data,
                     "--pin", self.core.fingerprint, *self.flags]
        self.process = start(arguments, stdout=subprocess.PIPE, stderr=log,
                             env={**os.environ, **secretly(self.token), **self.environment, **(environment or {})})
        self.events = Events(self.process)
        if wait:
            self.id = self.events.wait("online", seconds)["id"]
        return self

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(30)


def secretly(token):
    """An enrollment token for a program's environment: its arguments are for every user of the machine to read."""
    return {"CM_ENROLL_TOKEN": token} if token else {}


def swarm(core, agents, token, *flags):
    return start([program("cm-swarm"), "--server", core.url, "--pin", core.fingerprint, "--agents", str(agents), *flags],
                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **secretly(token)})


def status_kib(pid, field):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def cpu_seconds(pid):
    """User and system time of a process with all its threads and the children that it has waited for."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


class Prober:
    """Asks the API at a fixed rate, open loop: latency counts from the intended time of each request."""

    def __init__(self, core, path, rate):
        self.core, self.path, self.rate = core, path, rate
        self.latencies, self.failures = [], 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = []

    def start(self):
        begin = time.monotonic()
        ticket = iter(range(1 << 30))

        def work():
            connection = None
            while not self._stop.is_set():
                with self._lock:
                    due = begin + next(ticket) / self.rate
                if self._stop.wait(max(0, due - time.monotonic())):
                    return
                try:
                    connection = connection or self.core.connection(timeout=10)
                    status, _, _ = self.core.call("GET", self.path, connection=connection)
                    with self._lock:
                        if status == 200:
                            self.latencies.append(time.monotonic() - due)
                        else:
                            self.failures += 1
                except (OSError, http.client.HTTPException):
                    connection = None
                    with self._lock:
                        self.failures += 1

        self._threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(15)
        return self

    def percentile(self, share):
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


def verdict(what, figure, unit, floor, at_least):
    """One line of proof. `floor` is the bar; `at_least` says on which side of it is good.

    Figures of speed are judged by the full run only, on a quiet machine: the small one is part of `make test`, and a
    test that fails because its machine is busy says nothing. It prints them all the same.
    """
    good = figure >= floor if at_least else figure <= floor
    sign = ">=" if at_least else "<="
    if SMALL:
        print(f"SEEN  {what}: {figure:,.4g} {unit} (bar of the full run: {sign} {floor:,.4g} {unit})", flush=True)
        return good
    print(f"{'PASS' if good else 'FAIL'}  {what}: {figure:,.4g} {unit} (bar: {sign} {floor:,.4g} {unit})", flush=True)
    if not good:
        _failures.append(what)
    return good


def require(what, condition, detail=""):
    print(f"{'PASS' if condition else 'FAIL'}  {what}{': ' + str(detail) if detail != '' else ''}", flush=True)
    if not condition:
        _failures.append(what)
    return condition


def note(text):
    print(f"      {text}", flush=True)


def finish():
    sys.exit(1 if _failures else 0)
