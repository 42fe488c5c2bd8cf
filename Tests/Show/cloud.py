"""Shared by the proofs of the cloud plugin: real stores on free loopback ports, remotes, and content streamed through the core."""

import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse

import plugins
import show

ACCESS, SECRET = "AKCLIENTMANAGER", "secret/with+signs"


def tool(name):
    """A program of the environment that this script runs in."""
    return os.path.join(os.path.dirname(sys.executable), name)


def free_ports(count):
    """Ports that were free a moment ago. Who starts a server on one tries again with others when it was taken meanwhile."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(port, process, seconds=60):
    """True once something speaks HTTP there; False when the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            return False
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return True
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
    return False


class Seaweed:
    """A real S3 server that checks signatures: SeaweedFS, all of it in one process."""

    def __init__(self):
        self.folder = show.folder("cm-weed-")
        with open(os.path.join(self.folder, "identities.json"), "w") as file:
            json.dump({"identities": [
                {"name": "all", "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
                 "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
                {"name": "reader", "credentials": [{"accessKey": "AKREADER", "secretKey": "readersecret"}],
                 "actions": ["Read", "List"]}]}, file)
        names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
                 "s3.port", "s3.port.grpc"]
        for _ in range(5):
            ports = dict(zip(names, free_ports(len(names))))
            os.makedirs(os.path.join(self.folder, "data"), exist_ok=True)
            sockets = [f"-{part}.localSocket={self.folder}/{part}.sock" for part in ("filer", "s3")]
            log = open(os.path.join(self.folder, "log"), "ab")
            self.process = show.start(
                [tool("weed"), "-logdir=" + self.folder, "server", f"-dir={self.folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                 "-filer", "-s3", f"-s3.config={self.folder}/identities.json", "-s3.domainName=localhost", "-master.telemetry=false",
                 "-master.volumeSizeLimitMB=512", "-volume.max=40", "-s3.port.iceberg=0", "-s3.port.lance=0", *sockets, *[f"-{name}={port}" for name, port in ports.items()]],
                stdout=log, stderr=log, cwd=self.folder)
            if answers(ports["s3.port"], self.process):
                self.port = ports["s3.port"]
                self.url = f"http://127.0.0.1:{self.port}"
                return
            self.process.kill()
        raise RuntimeError("SeaweedFS does not start")


class Rclone:
    """`rclone serve`: a second S3 server that checks signatures, or a WebDAV server, over a folder."""

    def __init__(self, kind, *flags):
        self.folder = show.folder("cm-rclone-")
        for _ in range(5):
            port = free_ports(1)[0]
            self.process = show.start(
                [tool("rclone"), "serve", kind, self.folder, "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", *flags],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if answers(port, self.process):
                self.port, self.url = port, f"http://127.0.0.1:{port}"
                return
            self.process.kill()
        raise RuntimeError(f"rclone serve {kind} does not start")


def core_with_cloud(*flags, environment=None):
    dist = plugins.staged()
    core = show.Core(["--tls", "off", *flags], environment=environment).start()
    begin = plugins.drop(core, os.path.join(dist, "plugins", "cloud-storage.so"))
    plugins.wait_for_route(core, "/api/v1/cloud/remotes", begin)
    return core


def bucket(url, name):
    """Made with a presigned-free, hand-signed request of botocore, so that the plugin is not its own witness."""
    import botocore.session
    from botocore.config import Config
    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=ACCESS, aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}))
    client.create_bucket(Bucket=name)
    return client


class Remote:
    """A remote of the core, as an operator uses it."""

    def __init__(self, core, name, token=None, **members):
        self.core, self.name, self.token = core, name, token
        if members:
            self.made = core.post("/api/v1/cloud/remotes", {"name": name, **members})

    def path(self, word, **query):
        text = urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        return f"/api/v1/cloud/remotes/{self.name}/{word}" + ("?" + text if text else "")

    def call(self, method, word, body=None, headers=None, **query):
        """(status, parsed JSON or text)"""
        status, _, value = self.core.call(method, self.path(word, **query), body, token=self.token, headers=headers)
        return status, value

    def put(self, key, content, headers=None, **query):
        return self.call("PUT", "object", content, {"Content-Type": "application/octet-stream", **(headers or {})}, key=key, **query)

    def get(self, key, headers=None, read=None):
        """(status, headers, bytes); raises IncompleteRead where the answer was broken off."""
        connection = self.core.connection()
        connection.request("GET", self.path("object", key=key), headers={
            "Authorization": "Bearer " + (self.token or self.core.token), **(headers or {})})
        answer = connection.getresponse()
        content = answer.read() if read is None else answer.read(read)
        connection.close()
        return answer.status, dict(answer.headers.items()), content

    def list(self, limit=1000, **query):
        """Pages of keys."""
        pages, cursor = [], None
        while len(pages) < 100:
            status, page = self.call("GET", "objects", limit=limit, **query, **({"cursor": cursor} if cursor else {}))
            if status != 200:
                raise RuntimeError(f"list: {status} {page}")
            pages.append([item["key"] for item in page["items"]])
            cursor = page["next"]
            if not cursor:
                return pages
        raise RuntimeError("the list does not end")


def noise(size, seed=b"cloud"):
    """Bytes that do not compress, the same each time."""
    block = hashlib.shake_256(seed).digest(min(size, 1 << 20)) if size else b""
    whole = block * (size // max(len(block), 1) + 1)
    return whole[:size]


def broken_off(core, path, content, sent, length):
    """A PUT whose client sends so much of what it announced, and leaves."""
    connection = socket.create_connection((core.host, core.port))
    connection.sendall((
        f"PUT {path} HTTP/1.1\r\nHost: {core.host}:{core.port}\r\nAuthorization: Bearer {core.token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n").encode() + content[:sent])
    return connection


def dump_has(folder, needles):
    """Files below a folder that hold one of these texts."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                content = file.read()
            found += [f"{path}: {needle}" for needle in needles if needle.encode() in content]
    return found
