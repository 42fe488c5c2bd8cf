"""A small agent that nobody here compiled: written from Docs/agent-protocol.md alone, for proofs that need a peer which
says exactly what they want. It speaks WebSocket by hand, so that it can also be slow, rude or wrong.

Needs PyPI `pyOpenSSL` (for the TLS exporter) and `cryptography`; `show.environment` makes them.
"""

import base64
import hashlib
import json
import os
import select
import socket
import struct
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

CHALLENGE, HELLO, CORE_PROOF, AGENT_PROOF, ACCEPTED, PENDING, REFUSED = range(0x01, 0x08)
BEAT, BEAT_ANSWER, FACTS, CLOSE, MOVE, LIVENESS, LIVENESS_PROOF = range(0x10, 0x17)
REPORT, REPORTS_END, DECISION = 0x20, 0x21, 0x22
OPEN, STARTED, DATA, CREDIT, EXIT, EXIT_ACKNOWLEDGED, CANCEL = range(0x30, 0x37)
EXPORTER = b"EXPORTER-client-manager-agent-v1"
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ECDSA = ec.ECDSA(hashes.SHA256())


class Closed(Exception):
    """The core ended the connection; `code` is that of `refused` or `close`, if one was said."""

    def __init__(self, code=None, message=""):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Impostor(Exception):
    """Whoever answers is not the core that this agent is pinned to."""


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def identifier_bytes(text):
    number = 0
    for character in text:
        number = number * 32 + CROCKFORD.index(character)
    return number.to_bytes(16, "big")


def identifier_text(data):
    number = int.from_bytes(data, "big")
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -5, -5))


def counted(data):
    return struct.pack("<H", len(data)) + data


def frame(kind, payload=b"", flags=0, channel=0, offset=0, reserved=0, length=None):
    return struct.pack("<BBHIQI", kind, flags, reserved, channel, offset,
                       len(payload) if length is None else length) + payload


def exit_record(command, outcome=1, started=1, number=0, out=0, err=0, code="", message=""):
    now = int(time.time() * 1000)
    return (identifier_bytes(command) + struct.pack("<BBBBi", outcome, started, 2, 0, number)
            + struct.pack("<8Q", now, now, 0, 0, 0, 0, out, err)
            + counted(code.encode()) + counted(message.encode()))


def report(command, started=1, out=0, err=0, end=None):
    return (identifier_bytes(command) + struct.pack("<BBHQQ", started, 1 if end else 0, 0, out, err) + (end or b""))


class Identity:
    """What an agent keeps on its disk."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.client = None
        self.epoch = 0
        self.boot = os.urandom(8).hex()

    @property
    def public(self):
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self):
        return hashlib.sha256(self.public).hexdigest()

    def sign(self, data):
        return self.key.sign(data, ECDSA)


class Stream:
    """TCP or TLS with deadlines."""

    def __init__(self, host, port, tls, seconds=20, source=None):
        self.seconds = seconds
        self.socket = socket.create_connection((host, port), seconds, source_address=source and (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = None
        if tls:
            # No certificate is checked: the handshake inside proves the core's key and is bound to this connection.
            self.socket.setblocking(False)
            self.tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), self.socket)
            self.tls.set_connect_state()
            self._until(lambda: self.tls.do_handshake())

    def _until(self, step):
        end = time.monotonic() + self.seconds
        while True:
            try:
                return step()
            except SSL.WantReadError:
                ready = select.select([self.socket], [], [], max(0, end - time.monotonic()))[0]
            except SSL.WantWriteError:
                ready = select.select([], [self.socket], [], max(0, end - time.monotonic()))[1]
            if not ready:
                raise TimeoutError(f"nothing within {self.seconds} s")

    def send(self, data):
        if not self.tls:
            return self.socket.sendall(data)
        view = memoryview(data)
        while view:
            sent = self._until(lambda: self.tls.send(view[:16_384]))
            view = view[sent:]

    def receive(self):
        try:
            if not self.tls:
                return self.socket.recv(65_536)
            return self._until(lambda: self.tls.recv(65_536))
        except (SSL.ZeroReturnError, SSL.SysCallError, ConnectionError):
            return b""

    def exporter(self):
        return self.tls.export_keying_material(EXPORTER, 32) if self.tls else b""

    def close(self):
        self.socket.close()


class Link:
    """One WebSocket to /agent, up to whatever step the proof wants."""

    def __init__(self, host, port, tls=True, seconds=20, source=None, headers=""):
        self.stream = Stream(host, port, tls, seconds, source)
        self.buffer = b""
        self.frames = []
        self.sent = []  # Every message that went out, for those who record and repeat it.
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.send((
            f"GET /agent HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: client-manager.v1\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.buffer:
            more = self.stream.receive()
            if not more:
                raise Closed(None, self.buffer.decode("latin-1"))
            self.buffer += more
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise Closed(head.split(b" ")[1].decode(), head.decode("latin-1"))

    # WebSocket

    def message(self, data, opcode=2):
        self.sent.append(data)
        mask = os.urandom(4)
        length = len(data)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65_536:
            head += b"\xfe" + struct.pack(">H", length)
        else:
            head += b"\xff" + struct.pack(">Q", length)
        repeated = (mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
        try:
            self.stream.send(head + mask + masked)
        except (OSError, SSL.Error):
            pass  # The core's last word may wait to be read.

    def _need(self, count):
        while len(self.buffer) < count:
            more = self.stream.receive()
            if not more:
                raise Closed(None, "the connection ended without a word")
            self.buffer += more

    def _read(self):
        """One WebSocket frame of the core."""
        self._need(2)
        opcode, length, at = self.buffer[0] & 15, self.buffer[1] & 127, 2
        if length == 126:
            self._need(4)
            length, at = struct.unpack(">H", self.buffer[2:4])[0], 4
        elif length == 127:
            self._need(10)
            length, at = struct.unpack(">Q", self.buffer[2:10])[0], 10
        self._need(at + length)
        payload, self.buffer = self.buffer[at:at + length], self.buffer[at + length:]
        return opcode, payload

    def next(self):
        """(kind, flags, channel, offset, payload) of the next frame of the protocol."""
        while not self.frames:
            opcode, payload = self._read()
            if opcode == 9:
                self.message(payload, opcode=10)
            elif opcode == 8:
                raise Closed(payload[2:].decode() or None)
            elif opcode == 2:
                at = 0
                while at < len(payload):
                    kind, flags, _, channel, offset, length = struct.unpack_from("<BBHIQI", payload, at)
                    self.frames.append((kind, flags, channel, offset, payload[at + 20:at + 20 + length]))
                    at += 20 + length
        return self.frames.pop(0)

    def until(self, *kinds, channel=None):
        """The next frame of one of these kinds; answers heartbeats meanwhile. A refusal or a close is an exception."""
        end = time.monotonic() + 60
        while True:
            if time.monotonic() > end:
                raise TimeoutError("heartbeats and nothing else for 60 s")
            kind, flags, number, offset, payload = self.next()
            if kind in kinds and channel in (None, number):
                return kind, flags, number, offset, payload
            if kind == BEAT:
                self.message(frame(BEAT_ANSWER, struct.pack("<IIII", 150, 2_048, 4_096, 0), offset=offset))
            elif kind in (REFUSED, CLOSE):
                said = json.loads(payload)
                raise Closed(said["code"], said["message"])

    def ending(self):
        """The code with which the core ends this link."""
        try:
            while True:
                self.until(0xFF)
        except Closed as closed:
            return closed.code
        except TimeoutError:
            return "nothing"

    def close(self):
        self.stream.close()

    # Handshake

    def challenge(self):
        self.challenge_payload = self.until(CHALLENGE)[4]
        self.challenged = json.loads(self.challenge_payload)
        self.core_key = decode(self.challenged["key"])
        self.core_fingerprint = hashlib.sha256(self.core_key).hexdigest()
        return self

    def hello(self, identity, client=None, key=None, epoch=None, pin=None, **other):
        if pin is not None and pin != self.core_fingerprint:
            raise Impostor(f"the core's key is {self.core_fingerprint}")
        self.identity = identity
        identity.epoch += 1
        self.nonce = os.urandom(32)
        self.claimed = client if client is not None else identity.client
        self.key = key or identity.public
        self.epoch = identity.epoch if epoch is None else epoch
        fields = {"version": 1, "features": ["execution"], "nonce": encode(self.nonce), "key": encode(self.key),
                  "boot": identity.boot, "epoch": self.epoch, "agent_version": "stranger", "hostname": "stranger"}
        if self.claimed:
            fields["client"] = self.claimed
        self.hello_payload = json.dumps({**fields, **other}).encode()
        self.message(frame(HELLO, self.hello_payload))
        return self

    def transcript(self, role, token=None):
        name = self.challenged["binding"]
        return (b"client-manager.v1 handshake\0" + role + struct.pack("<Q", 1)
                + decode(self.challenged["nonce"]) + self.nonce + counted(self.core_key) + counted(self.key)
                + (identifier_bytes(self.claimed) if self.claimed else bytes(16)) + counted(self.identity.boot.encode())
                + struct.pack("<Q", self.epoch) + counted(name.encode()) + counted(self.stream.exporter())
                + hashlib.sha256(self.challenge_payload).digest() + hashlib.sha256(self.hello_payload).digest()
                + (hashlib.sha256(token.encode()).digest() if token else bytes(32)))

    def check_core(self):
        signature = decode(json.loads(self.until(CORE_PROOF)[4])["signature"])
        try:
            serialization.load_der_public_key(self.core_key).verify(signature, self.transcript(b"C"), ECDSA)
        except InvalidSignature:
            raise Impostor("the core's signature does not fit this connection") from None
        return self

    def prove(self, token=None, signer=None):
        fields = {"signature": encode((signer or self.identity).sign(self.transcript(b"A", token)))}
        if token:
            fields["token"] = token
        self.message(frame(AGENT_PROOF, json.dumps(fields).encode()))
        return self

    def verdict(self):
        """`accepted` as an object, or the pending notice."""
        kind, _, _, _, payload = self.until(ACCEPTED, PENDING)
        said = json.loads(payload)
        self.pending = kind == PENDING
        if kind == ACCEPTED:
            self.identity.client = said["client"]
        return said


def connect(core, identity, token=None, pin=None, reports=(), **options):
    """A whole, honest handshake: an accepted link that has sent its reports, or a pending one."""
    link = Link(core.host, core.port, tls=core.url.startswith("https"), **options)
    link.challenge().hello(identity, pin=pin or core.fingerprint).check_core().prove(token)
    link.said = link.verdict()
    if not link.pending:
        link.message(b"".join(frame(REPORT, each) for each in reports) + frame(REPORTS_END))
    return link
