"""For the proofs of file transfer: an OpenSSH server of this proof's own on loopback, files of random bytes, memory and wire
bytes of processes while they copy."""

import getpass
import hashlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import show


def random_file(path, size):
    """Bytes that no compression shortens; the same hash as `sha256sum` of it."""
    digest = hashlib.sha256()
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        written = 0
        while written < size:
            # Each MiB is another one: the block, turned by its number.
            turn = (written >> 20) * 4099 % len(block)
            piece = (block[turn:] + block[:turn])[:size - written]
            file.write(piece)
            digest.update(piece)
            written += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SSHServer:
    """sshd with keys and a configuration of its own, for the user who runs the proof."""

    def __init__(self):
        self.folder = show.folder("cm-sshd-")
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(self.folder, name)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        keys = os.path.join(self.folder, "authorized")
        shutil.copy(os.path.join(self.folder, "user.pub"), keys)
        os.chmod(keys, 0o600)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # Only the superuser's sshd wants it.
        server = next(path for path in ("/usr/sbin/sshd", shutil.which("sshd")) if path and os.path.exists(path))
        configuration = os.path.join(self.folder, "sshd_config")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\nAuthorizedKeysFile {keys}\n"
                       f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
                       f"MaxStartups 100\nSubsystem sftp internal-sftp\n")
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.process = show.start([server, "-D", "-e", "-f", configuration], stdout=self.log, stderr=self.log)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.025)
        self.options = ["-i", os.path.join(self.folder, "user"), "-o", "StrictHostKeyChecking=no", "-o",
                        f"UserKnownHostsFile={self.folder}/known", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]

    def scp(self, source, target):
        begin = time.monotonic()
        subprocess.run(["scp", "-q", "-P", str(self.port), *self.options, source, f"{getpass.getuser()}@127.0.0.1:{target}"],
                       check=True, timeout=280)
        return time.monotonic() - begin

    def command(self, *words):
        return ["ssh", "-p", str(self.port), *self.options, f"{getpass.getuser()}@127.0.0.1", *words]


class Watch:
    """Anonymous memory of processes while something happens: the most above what it was before."""

    def __init__(self, **pids):
        self.pids = pids
        self.before = {name: show.status_kib(pid, "RssAnon") for name, pid in pids.items()}
        self.most = dict(self.before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self._over.wait(0.05):
            for name, pid in self.pids.items():
                try:
                    self.most[name] = max(self.most[name], show.status_kib(pid, "RssAnon"))
                except (OSError, RuntimeError):
                    pass

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(5)

    def growth_mib(self, name):
        return (self.most[name] - self.before[name]) / 1024


def wire_bytes(pid, port):
    """(sent, received) of the connections that this process has to a port of loopback, by the kernel's own count."""
    text = subprocess.run(["ss", "-tinpH", f"dport = :{port}"], capture_output=True, text=True, check=True).stdout
    sent = received = 0
    lines = text.splitlines()
    for head, info in zip(lines, lines[1:]):
        if f"pid={pid}," not in head:
            continue
        for name, value in re.findall(r"\b(bytes_sent|bytes_received):(\d+)", info):
            if name == "bytes_sent":
                sent += int(value)
            else:
                received += int(value)
    return sent, received


def cmctl(core, *words, check=True, timeout=280, **options):
    """(seconds, finished process)"""
    environment = {**os.environ, "CM_SERVER": core.url, "CM_TOKEN": core.token, "CM_PIN": core.fingerprint}
    begin = time.monotonic()
    done = subprocess.run([show.program("cmctl"), *words], env=environment, capture_output=True, text=True, timeout=timeout, **options)
    seconds = time.monotonic() - begin
    if check and done.returncode != 0:
        raise RuntimeError(f"cmctl {' '.join(words)}: {done.returncode} {done.stderr}")
    return seconds, done
