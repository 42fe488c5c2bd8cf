"""Shared by the proofs of the secrets plugin: a core with a master key that loads it, values that can be found again in whatever
form, agents with a directory for private files of their own."""

import base64
import json
import os
import secrets
import shutil
import tempfile
import time

import plugins
import show

ROUTE = "/api/v1/secrets"


def value():
    """A secret of 40 printable bytes that occurs nowhere else."""
    return "S" + secrets.token_hex(19) + "!"


def forms(text):
    """The value as it could stand in a dump: raw, hexadecimal, base64 at each of the three offsets, each without its borders."""
    raw = text.encode()
    found = {"raw": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + raw)
        found[f"base64+{offset}"] = encoded[4 if offset else 0:len(encoded) - 4]
        encoded = base64.urlsafe_b64encode(b"x" * offset + raw)
        found[f"base64url+{offset}"] = encoded[4 if offset else 0:len(encoded) - 4]
    return found


def search(values, name, content):
    """Names of the values that stand in `content`, in whatever form."""
    return [f"{label} in {name} ({form})" for label, text in values.items() for form, needle in forms(text).items() if needle in content]


def until(what, condition, seconds=30):
    """Polls, bounded; answers what came."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            show.require(what, False, f"not within {seconds} s")
            return None
        time.sleep(0.05)


class Vault:
    """A core with the plugin, over TLS, with a master key."""

    def __init__(self, dist, settings=None, flags=()):
        self.dist = dist
        self.key = os.path.join(show.folder(), "master-key")
        self.new_key()
        self.settings = settings or {}
        configuration = os.path.join(os.path.dirname(self.key), "core.json")
        with open(configuration, "w", encoding="utf-8") as file:
            json.dump({"security": {"master_key_file": self.key}, "plugins": {"settings": self.settings}}, file)
        self.core = show.Core(["--config", configuration, *flags]).start()
        plugins.wait_for_route(self.core, ROUTE, plugins.drop(self.core, os.path.join(dist, "plugins", "secrets-sync.so")))

    def new_key(self):
        with open(self.key + ".new", "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        os.chmod(self.key + ".new", 0o600)
        os.rename(self.key + ".new", self.key)

    def call(self, method, path, body=None, **options):
        return self.core.call(method, ROUTE + path, body, **options)

    def create(self, name, text, **more):
        return self.core.post(ROUTE, {"name": name, "value": text, **more})

    def assign(self, name, selector, **more):
        return self.core.post(f"{ROUTE}/{name}/assignments", {"selector": selector, **more})

    def files(self, name, state=None):
        """Every file of a secret, over all pages."""
        items, cursor = [], ""
        while True:
            page = self.core.get(f"{ROUTE}/{name}/clients?limit=1000{cursor}" + (f"&state={state}" if state else ""))
            items += page["items"]
            if not page["next"]:
                return items
            cursor = "&cursor=" + page["next"]

    def applied(self, name, version, count, slot="current", seconds=60):
        """Waits until so many clients have shown this version in this place; answers the seconds."""
        begin = time.monotonic()
        until(f"{count} clients show {name} {version} as {slot}", lambda: sum(
            item["state"] == "applied" and item.get("placed") == version and item["slot"] == slot for item in self.files(name)) == count,
            seconds)
        return time.monotonic() - begin

    def rotate(self, name, text, seconds=120, **rule):
        """Rotates and waits for the end of the job; answers (job, seconds)."""
        begin = time.monotonic()
        job = self.core.post(f"{ROUTE}/{name}/rotate", {"value": text, **rule})["job"]
        found = until(f"the rotation of {name} ends", lambda: self.job_end(job), seconds)
        return found, time.monotonic() - begin

    def job_end(self, job):
        found = self.core.get(f"/api/v1/jobs/{job}")
        return found if found["state"] in ("succeeded", "dead", "cancelled") else None


class Agent(show.Agent):
    """A real agent whose private files stand in a directory of their own in memory."""

    def __init__(self, core, token, hooks=(), **options):
        super().__init__(core, token, **options)
        self.files = tempfile.mkdtemp(prefix="cm-show-files-", dir="/dev/shm")
        os.rmdir(self.files)
        show._folders.append(self.files)
        os.makedirs(self.data, mode=0o700, exist_ok=True)
        with open(os.path.join(self.data, "policy.json"), "w", encoding="utf-8") as file:
            json.dump({"private_files": {"directory": self.files, "hooks": [list(hook) for hook in hooks]}}, file)

    def read(self, name):
        """What a program would read; None: there is no file."""
        try:
            with open(os.path.join(self.files, name), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def forget_memory(self):
        """What a restart of the machine does to files in memory."""
        shutil.rmtree(self.files, ignore_errors=True)
