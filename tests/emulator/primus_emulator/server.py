# SPDX-FileCopyrightText: The hsmops.primus authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listeners: two HSM nodes, a service proxy in front of each, and the admin socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl

from . import codes, protocol
from .admin import COMMANDS, socket_path
from .hsm import FIRMWARE, NODE_NAMES, Hsm, UnknownName

CLUSTER = range(len(NODE_NAMES))


def make_certificate(path: str, key_path: str, host: str):
    """Write a self-signed certificate and its key for host and loopback."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Primus HSM emulator")])
    addresses = {ipaddress.ip_address(host), ipaddress.ip_address("127.0.0.1")}
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(a) for a in addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    with open(path, "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    with open(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.write(key.private_bytes(encoding, form, serialization.NoEncryption()))


class Listener:
    """One address: a node or the proxy in front of it. While closed it keeps its port and refuses connections."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, handler):
        # Bound and never listening: nobody else can take the port while the real listener is closed.
        self._reserve = self._bind(host, port)
        self.host, self.port = self._reserve.getsockname()
        self._tls = tls
        self._handler = handler
        self._server = None
        self._connections = set()

    @staticmethod
    def _bind(host: str, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        return sock

    @property
    def up(self) -> bool:
        return self._server is not None

    async def open(self):
        if not self.up:
            sock = self._bind(self.host, self.port)
            self._server = await asyncio.start_server(
                self._connected, sock=sock, ssl=self._tls, backlog=1024, limit=protocol.LIMIT
            )

    def close(self):
        if self.up:
            self._server.close()
            self._server = None
        for writer in self._connections:
            writer.transport.abort()

    async def _connected(self, reader, writer):
        self._connections.add(writer)
        try:
            await self._handler(reader, writer)
        except (ConnectionError, ValueError, KeyError):
            pass  # a client that has disconnected, or does not use the protocol
        finally:
            self._connections.discard(writer)
            writer.close()


class Server:
    """Runs an Hsm. state: the directory of endpoint.json, ca.pem and admin.sock; ports: None for free ones."""

    def __init__(self, config: dict, state: str, bind: str, ports: int | None):
        self._hsm = Hsm(config)
        self._state = os.path.abspath(state)
        os.makedirs(self._state, exist_ok=True)
        self._lock = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError("an emulator runs in %s already" % self._state) from None
        ca, key = self._path("ca.pem"), self._path("key.pem")
        make_certificate(ca, key, bind)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(ca, key)
        numbers = [0] * 4 if ports is None else range(ports, ports + 4)
        listeners = [
            Listener(bind, number, tls, self._client_handler(i % 2, through_proxy=i >= 2))
            for i, number in enumerate(numbers)
        ]
        self._nodes, self._proxies = listeners[:2], listeners[2:]

    def _path(self, name: str) -> str:
        return os.path.join(self._state, name)

    async def run(self, ready):
        """Serve until SIGTERM or SIGINT; ready() is called once everything listens."""
        self._slow = 0.0
        self._running = asyncio.Event()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await self._restore()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("admin.sock"))
        with socket_path(self._path("admin.sock")) as path:
            admin = await asyncio.start_unix_server(self._admin_connected, path=path, limit=protocol.LIMIT)
        os.chmod(self._path("admin.sock"), 0o600)
        self._write_endpoint()
        ready()
        await stop.wait()
        admin.close()
        for listener in self._nodes + self._proxies:
            listener.close()
        for name in ("endpoint.json", "admin.sock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(name))

    def _write_endpoint(self):
        endpoint = {
            "pid": os.getpid(),
            "ca": self._path("ca.pem"),
            "nodes": [{"host": node.host, "port": node.port} for node in self._nodes],
            "proxies": [{"host": proxy.host, "port": proxy.port} for proxy in self._proxies],
            "admin": self._path("admin.sock"),
        }
        with open(self._path("endpoint.json.new"), "w") as file:
            json.dump(endpoint, file, indent=2)
        os.rename(self._path("endpoint.json.new"), self._path("endpoint.json"))

    async def _restore(self):
        self._slow = 0.0
        self._running.set()
        for listener in self._nodes + self._proxies:
            await listener.open()

    # Clients

    def _client_handler(self, node: int, through_proxy: bool):
        async def handle(reader, writer):
            session = {"proxy": not through_proxy, "peer": writer.get_extra_info("peername")[0]}
            while line := await reader.readline():
                await self._running.wait()
                if reader.at_eof() or writer.is_closing():
                    return  # gone while the HSM hung: it must not be evaluated
                answer = self._answer(node, session, protocol.decode(line))
                await asyncio.sleep(self._slow)
                writer.write(protocol.encode(answer))
                await writer.drain()

        return handle

    def _answer(self, node: int, session: dict, request: dict) -> dict:
        op = request["op"]
        if "client" in request:
            session["client"] = request["client"]
        who = {"node": node, "client": session.get("client", ""), "peer": session["peer"]}
        if op == "proxy-login":
            code = self._hsm.login_proxy(request["user"], request["password"], source=request["source"], **who)
            session["proxy"] = code == codes.OK
            return {"code": code}
        if not session["proxy"]:
            return {"code": codes.NOT_LOGGED_IN}
        if not self._nodes[node].up:
            return {"code": codes.CONNECT_FAILED}  # what a proxy answers for a node that it does not reach
        if op == "hello":
            return {"code": codes.OK, "firmware": FIRMWARE}
        if op == "login":
            partition, kind, source = request["partition"], request["kind"], request["source"]
            code = self._hsm.login(partition, kind, request["password"], source=source, **who)
            session["partition"] = None if code else partition
            session["setup"] = request["password"] if kind == "setup" else None
            return {"code": code}
        partition = session.get("partition")
        if partition is None:
            return {"code": codes.NOT_LOGGED_IN}
        if op == "pkcs11-login":
            code = self._hsm.login_pkcs11(partition, request["password"], source=request["source"], **who)
            session["pkcs11"] = code == codes.OK
            return {"code": code}
        if op == "fetch-secret":
            if not session.get("pkcs11"):
                return {"code": codes.NOT_LOGGED_IN}
            return self._hsm.fetch_secret(partition, session["setup"], **who)
        if op == "fetch-log":
            return self._hsm.fetch_log(partition, node, request["since"], request["reverse"])
        raise ValueError(op)

    # The admin command

    async def _admin_connected(self, reader, writer):
        try:
            while line := await reader.readline():
                request = protocol.decode(line)
                try:
                    answer = {"result": await self._admin(request["command"], request["args"])}
                except (UnknownName, ValueError, TypeError, KeyError, OSError) as error:
                    answer = {"error": "%s: %s" % (request.get("command"), error)}
                writer.write(protocol.encode(answer))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _admin(self, command: str, args: dict):
        if command not in COMMANDS:
            raise UnknownName("no such command")
        name = command.replace("-", "_")
        own = getattr(self, "_admin_" + name, None)
        if own is not None:
            return await own(**args)
        return getattr(self._hsm, name)(**args)

    async def _admin_reset(self, config: str | None = None):
        self._hsm.reset(read_config(config) if config else None)
        await self._restore()

    async def _admin_status(self):
        return {
            **self._hsm.status(),
            "nodes": [node.up for node in self._nodes],
            "proxies": [proxy.up for proxy in self._proxies],
            "slow": self._slow,
            "hang": not self._running.is_set(),
        }

    async def _admin_network(self, state: str, node=None):
        await self._switch(self._nodes, state, node)

    async def _admin_proxy(self, state: str, node=None):
        await self._switch(self._proxies, state, node)

    async def _switch(self, listeners: list, state: str, node):
        numbers = CLUSTER if node is None else [int(str(node).replace("hsm", ""))]
        if not set(numbers) <= set(CLUSTER):
            raise UnknownName("no node %s" % node)
        for number in numbers:
            if truth(state, "up", "down"):
                await listeners[number].open()
            else:
                listeners[number].close()

    async def _admin_slow(self, seconds: float):
        self._slow = float(seconds)

    async def _admin_hang(self, state: str):
        if truth(state, "on", "off"):
            self._running.clear()
        else:
            self._running.set()

    async def _admin_report(self):
        return self._hsm.report


def truth(word: str, yes: str, no: str) -> bool:
    if word not in (yes, no):
        raise ValueError("%r is neither %s nor %s" % (word, yes, no))
    return word == yes


def read_config(path: str) -> dict:
    with open(path) as file:
        return json.load(file)
