"""The line between sites and coordinator: a TCP proxy that can be cut, silenced or made slow."""

import contextlib
import selectors
import socket
import threading
import time

_CHUNK = 64 * 1024


class Line:
    """Passes connections on to ``target``; a context manager.

    Args:
        target: port at 127.0.0.1 that is reached by this line.

    Attributes:
        port: where it listens at 127.0.0.1.
        delay_s: pause before every piece that is passed on.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.delay_s = 0.0
        self._cut = False
        self._silent = False
        self._open: set[socket.socket] = set()
        self._forgotten: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and end all connections."""
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._cut = True
        with self._lock:
            for side in self._open:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Swallow what is sent and tell nobody, as a firewall does that forgot its connections; new ones, too."""
        with self._lock:
            self._silent = True
            self._forgotten |= self._open

    def mend(self) -> None:
        """Serve new connections again; those that were forgotten stay so."""
        self._cut = self._silent = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if self._cut:
                return
            with socket.create_connection(("127.0.0.1", self._target), timeout=10.0) as far:
                far.settimeout(None)
                with self._lock:
                    self._open |= {near, far}
                    if self._silent:
                        self._forgotten |= {near, far}
                try:
                    self._pump(near, far)
                finally:
                    with self._lock:
                        self._open -= {near, far}
                        self._forgotten -= {near, far}

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with selectors.DefaultSelector() as ready:
            for side in other:
                ready.register(side, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(_CHUNK)
                    if not data:
                        return
                    if key.fileobj in self._forgotten:
                        continue
                    if self.delay_s:
                        time.sleep(self.delay_s)
                    other[key.fileobj].sendall(data)
