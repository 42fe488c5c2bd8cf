"""Shared by the proofs of the SSH installer: real OpenSSH servers on machines of their own. Each is a set of namespaces
(network, mounts, processes, names) with a root of its own; the whole proof runs in a network that it has made, where nothing
else is. Needs root, openssh-server and sudo."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time

import show

INSIDE = "CM_SSH_NETWORK"
HUB = "10.99.0.1"


def own_network():
    """Runs the calling script again in namespaces of its own (network, mounts, processes), once; they end with it, and all that
    it has started."""
    if INSIDE in os.environ:
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "hub", "type", "bridge")
        run("ip", "addr", "add", HUB + "/16", "dev", "hub")
        run("ip", "link", "set", "hub", "up")
        return
    missing = [name for name in ("sshd", "sudo", "unshare", "ip", "ssh-keygen", "ssh-agent", "systemd-analyze") if not found(name)]
    if missing or os.geteuid() != 0:
        show.require("root, and what the proof needs", False, "missing: " + (", ".join(missing) or "root's rights"))
        show.finish()
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]])


def found(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def run(*words, **options):
    options.setdefault("check", True)
    options.setdefault("timeout", 60)
    return subprocess.run(words, **options)


# Plays the part of systemd that an installation uses, faithful where it matters: it reads the unit, undoes its quoting and
# starts it again when it ends.
SYSTEMCTL = r'''#!/usr/bin/python3
import os, shlex, signal, subprocess, sys, time
UNIT, RUN = "/etc/systemd/system/cm-agent.service", "/run/played-systemd"
words = [word for word in sys.argv[1:] if not word.startswith("-")]
verb = words[0] if words else ""
os.makedirs(RUN, exist_ok=True)
with open(RUN + "/calls", "a") as file: file.write(" ".join(sys.argv[1:]) + "\n")
def number(name):
    try: return int(open(f"{RUN}/{name}").read())
    except (OSError, ValueError): return 0
def stop():
    for name in ("keeper", "main"):
        pid = number(name)
        try:
            if pid: os.kill(pid, signal.SIGTERM)
        except OSError: pass
        for _ in range(100):
            if not pid or not os.path.exists(f"/proc/{pid}"): break
            time.sleep(0.05)
def command():
    line = [line for line in open(UNIT) if line.startswith("ExecStart=")][0][len("ExecStart="):]
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]
if verb in ("stop", "disable", "restart"):
    stop()
if verb == "disable" or verb == "enable":
    link = "/etc/systemd/system/multi-user.target.wants/cm-agent.service"
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if os.path.lexists(link): os.unlink(link)
    if verb == "enable": os.symlink(UNIT, link)
if verb == "restart":
    words = command()
    open(RUN + "/restarts", "w").write("0")
    if os.fork() == 0:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        log = os.open("/run/played-systemd/journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for target, source in ((0, null), (1, log), (2, log)): os.dup2(source, target)
        open(RUN + "/keeper", "w").write(str(os.getpid()))
        count = 0
        while True:
            child = subprocess.Popen(words)
            open(RUN + "/main", "w").write(str(child.pid))
            child.wait()
            count += 1
            open(RUN + "/restarts", "w").write(str(count))
            time.sleep(0.3)
if verb == "show":
    print(number("restarts"))
'''

INIT = r'''
set -e
root=$1
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$root"
cd "$root"
mkdir -p usr etc dev proc sys run tmp root var/log var/lib home run/sshd
chmod 1777 tmp; chmod 0700 root
for name in bin sbin lib lib64; do if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"; else mkdir "$name"; mount --bind "/$name" "$name"; fi; done
mount --rbind /usr usr; mount --rbind /dev dev
mount -t tmpfs -o mode=0755 tmpfs usr/local; mkdir -p usr/local/bin usr/local/sbin
mkdir -p etc/ssh etc/systemd/system
cp -a /etc/pam.d /etc/security /etc/login.defs /etc/nsswitch.conf /etc/ld.so.cache etc/ 2>/dev/null || true
cp -a "$2/." etc/
chmod 0440 etc/sudoers; chmod 0600 etc/shadow etc/ssh/ssh_host_*_key; chown -R 0:0 etc
if [ -e etc/played-systemctl ]; then mkdir -p run/systemd/system; install -m 0755 etc/played-systemctl usr/local/sbin/systemctl; rm etc/played-systemctl; fi
if [ -e etc/root-keys ]; then mkdir -m 0700 root/.ssh; mv etc/root-keys root/.ssh/authorized_keys; chmod 0600 root/.ssh/authorized_keys; fi
mkdir -m 0755 home/admin; chown 1000:1000 home/admin
mount -t proc proc proc
hostname "$3"
exec chroot . /usr/sbin/sshd -D -e
'''


class Host:
    """One machine with an OpenSSH server at port 22 of an address of its own."""

    count = 0

    def __init__(self, name, password="right password", systemd=False, keys=(), sshd=(), sudoers="admin ALL=(ALL:ALL) ALL"):
        Host.count += 1
        self.name, self.password = name, password
        self.address = f"10.99.{Host.count // 200 + 1}.{Host.count % 200 + 1}"
        place = show.folder("cm-host-")
        self.root, etc = os.path.join(place, "root"), os.path.join(place, "etc")
        os.makedirs(self.root)
        os.makedirs(os.path.join(etc, "ssh"))
        hashed = run("openssl", "passwd", "-6", "-stdin", input=password.encode(), stdout=subprocess.PIPE).stdout.decode().strip()
        files = {
            "passwd": "root:x:0:0:root:/root:/bin/sh\nadmin:x:1000:1000::/home/admin:/bin/sh\nagent:x:1001:1001::/:/usr/sbin/nologin\n"
                      "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
            "group": "root:x:0:\nadmin:x:1000:\nagent:x:1001:\nnogroup:x:65534:\ntty:x:5:\nshadow:x:42:\n",
            "shadow": f"root:*:19000:0:99999:7:::\nadmin:{hashed}:19000:0:99999:7:::\nagent:!:19000::::::\nsshd:!:19000::::::\n",
            "hosts": f"127.0.0.1 localhost {name}\n", "sudoers": f"Defaults use_pty\nroot ALL=(ALL:ALL) ALL\n{sudoers}\n",
            # sshd takes the first word on anything.
            "ssh/sshd_config": "".join(line + "\n" for line in sshd)
                               + "Port 22\nListenAddress 0.0.0.0\nHostKey /etc/ssh/ssh_host_ed25519_key\nHostKey /etc/ssh/ssh_host_ecdsa_key\n"
                                 "PermitRootLogin yes\nUsePAM no\nPidFile none\nMaxStartups 100\nUseDNS no\n",
        }
        if systemd:
            files["played-systemctl"] = SYSTEMCTL
        if keys:
            files["root-keys"] = "".join(open(key + ".pub").read() for key in keys)
        for path, text in files.items():
            with open(os.path.join(etc, path), "w") as file:
                file.write(text)
        for kind in ("ed25519", "ecdsa"):
            run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", os.path.join(etc, "ssh", f"ssh_host_{kind}_key"))
        self.host_key = os.path.join(etc, "ssh", "ssh_host_ed25519_key.pub")
        script = os.path.join(place, "init")
        with open(script, "w") as file:
            file.write(INIT)
        self.log = open(os.path.join(place, "sshd.log"), "wb")
        self.process = show.start(
            ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", script, self.root, etc, name],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def connect(self):
        """Gives it its network, and waits until its server answers."""
        mine = os.readlink("/proc/self/ns/net")
        bounded("a network namespace", lambda: os.readlink(f"/proc/{self.process.pid}/ns/net") != mine)
        number = self.address.replace("10.99.", "").replace(".", "x")
        run("ip", "link", "add", f"h{number}", "type", "veth", "peer", "name", "eth0", "netns", str(self.process.pid))
        run("ip", "link", "set", f"h{number}", "master", "hub", "up")
        inside = ("nsenter", "-t", str(self.process.pid), "-n")
        run(*inside, "sh", "-c", f"ip addr add {self.address}/16 dev eth0 && ip link set eth0 up && ip link set lo up")
        bounded(f"sshd of {self.name}", self._answers, 30)
        return self

    def _answers(self):
        try:
            with socket.create_connection((self.address, 22), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def sh(self, script, check=True):
        """On the machine, as root, beside its SSH server."""
        pid = self.child()
        done = run("nsenter", "-t", pid, "-n", "-m", "-p", "-u", "-r", "-w", "/bin/sh", "-c", script, stdout=subprocess.PIPE,
                   stderr=subprocess.STDOUT, check=False)
        text = done.stdout.decode("utf-8", "replace")
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name}: {script!r} ended with {done.returncode}: {text}")
        return text

    def child(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return file.read().split()[0]

    def listing(self):
        """What may be left behind: every file of the places that can be written, and every process but the server's."""
        files = self.sh("find /etc /var /usr/local /root /home /tmp /run -not -path '*/sudo*' -not -name '.sudo_as_admin_successful' -not -path '/run/played-systemd*' -not -path '/run/systemd/systemd-units-load' -not -name '*.wants' | sort")
        processes = self.sh("for p in /proc/[0-9]*; do readlink $p/exe; done | grep cm-agent; true")
        return files, processes

    def known_hosts(self):
        with open(self.host_key) as file:
            return f"{self.address} {' '.join(file.read().split()[:2])}\n"

    def fingerprint(self):
        return run("ssh-keygen", "-l", "-f", self.host_key, stdout=subprocess.PIPE).stdout.decode().split()[1]


def bounded(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.03)
    raise TimeoutError(f"{what}: not within {seconds} s")


def key(place, kind="ed25519", passphrase="", name=None):
    path = os.path.join(place, name or f"id_{kind}")
    run("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path)
    return path
