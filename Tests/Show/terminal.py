"""Shared by the proofs of the terminal: a WebSocket to a session over a plain socket, a bare relay, keystrokes and floods."""

import base64
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import time

import plugins
import show


class Closed(Exception):
    pass


class Relay:
    """The bare C relay: bytes as they are."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, seconds=10):
        """What has come, at least a byte."""
        if not select.select([self.socket], [], [], seconds)[0]:
            raise TimeoutError("no output")
        data = self.socket.recv(1 << 20)
        if not data:
            raise Closed()
        return data

    def close(self):
        self.socket.close()


class Terminal:
    """A WebSocket attached to a session (RFC 6455, no extensions); output as bytes, texts in `notices`."""

    def __init__(self, core, session, offset=None, mode="typist"):
        self.socket = socket.create_connection((core.host, core.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if core.url.startswith("https"):
            authority = ssl.create_default_context(cafile=os.path.join(core.data, "keys", "ca.pem"))
            self.socket = authority.wrap_socket(self.socket, server_hostname=core.host)
        query = f"?mode={mode}" + (f"&offset={offset}" if offset is not None else "")
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((
            f"GET /api/v1/terminal/sessions/{session}/attach{query} HTTP/1.1\r\nHost: {core.host}:{core.port}\r\n"
            f"Authorization: Bearer {core.token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n").encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            piece = self.socket.recv(4096)
            if not piece:
                raise Closed()
            self.buffer += piece
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode() + self.buffer.decode())
        self.notices, self.offset = [], None

    def _frame(self, opcode, payload):
        mask = b"\x01\x02\x03\x04"
        size = len(payload)
        head = bytes([0x80 | opcode]) + (bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size))
        masked = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
        self.socket.sendall(head + mask + masked)

    def send(self, data):
        for start in range(0, len(data), 16384):
            self._frame(2, data[start:start + 16384])

    def receive(self, seconds=10):
        while True:
            data = self._parse()
            if data:
                return data
            # Of a TLS record a part may be here already: then the socket itself has nothing to say.
            waits = not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending())
            if waits and not select.select([self.socket], [], [], seconds)[0]:
                raise TimeoutError("no output")
            piece = self.socket.recv(1 << 20)
            if not piece:
                raise Closed()
            self.buffer += piece

    def _parse(self):
        """The output in what has come; several messages in one go."""
        output, at, view = [], 0, memoryview(self.buffer)
        while len(view) - at >= 2:
            opcode, size, head = view[at] & 15, view[at + 1], 2
            if size == 126:
                if len(view) - at < 4:
                    break
                size, head = struct.unpack(">H", view[at + 2:at + 4])[0], 4
            elif size == 127:
                if len(view) - at < 10:
                    break
                size, head = struct.unpack(">Q", view[at + 2:at + 10])[0], 10
            if len(view) - at < head + size:
                break
            payload = bytes(view[at + head:at + head + size])
            at += head + size
            if opcode == 2:
                output.append(payload)
                self.offset = (self.offset or 0) + size
            elif opcode == 1:
                notice = json.loads(payload)
                self.notices.append(notice)
                if notice["type"] == "attached":
                    self.offset = notice["offset"]
                elif notice["type"] == "gap":
                    self.offset = notice["to"]
            elif opcode == 9:
                self._frame(10, payload)
            elif opcode == 8:
                self.buffer = b""
                if not output:
                    raise Closed()
                break
        view.release()
        self.buffer = self.buffer[at:]
        return b"".join(output)

    def close(self):
        self.socket.close()


def drop_terminal(core, dist):
    begin = plugins.drop(core, os.path.join(dist, "plugins", "terminal.so"))
    return plugins.wait_for_route(core, "/api/v1/terminal/sessions", begin)


def open_session(core, client, argv=None, **more):
    return core.post("/api/v1/terminal/sessions", {"client": client, **({"argv": argv} if argv else {}), **more})["id"]


def until(stream, mark, seconds=60):
    """Output up to this mark, and a little more."""
    output, end = b"", time.monotonic() + seconds
    while mark not in output:
        if time.monotonic() > end:
            raise TimeoutError(f"{mark!r} did not come; {output[-200:]!r} did")
        output += stream.receive(seconds)
    return output


def prompt(stream):
    """A quiet shell: no prompt, no colours, echo as the line discipline does it."""
    stream.send(b"exec env PS1= ENV= sh\r")
    stream.send(b"printf 'rea''dy\\n'\r")
    until(stream, b"ready\r\n")


def keystrokes(stream, count):
    """Seconds from each key to its echo."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        stream.send(b"x")
        while b"x" not in stream.receive():
            pass
        times.append(time.perf_counter() - begin)
    stream.send(b"\x15")  # Ctrl-U: the line is void.
    return sorted(times)


def flood(stream, seconds):
    """Bytes of `yes` a second, as fast as they come."""
    stream.send(b"yes 0123456789abcdef0123456789abcdef\r")
    until(stream, b"0123456789abcdef\r\n")
    begin, total = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        total += len(stream.receive())
    took = time.perf_counter() - begin
    stream.send(b"\x03")
    stream.send(b"printf 'over''\\n'\r")
    tail = b""
    end = time.monotonic() + 60
    while b"over\r\n" not in tail and time.monotonic() < end:
        tail = (tail + stream.receive(30))[-64:]
    return total / took


def floor():
    process = show.start([show.program("cm-bench"), "floor", "terminal"], stdout=subprocess.PIPE)
    ready = show.Events(process).wait("ready", 10)
    return process, int(ready["url"].rsplit(":", 1)[1])
