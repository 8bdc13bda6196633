"""One attached client: a socket that takes output and may give input."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.sandbox import detach
from sampan.sandbox.logfile import LogWriter, replay_records
from sampan.sandbox.loop import HANGUP, READ, WRITE, Loop
from sampan.sandbox.messages import AttachOptions
from sampan.wire import stdcopy, websocket

if TYPE_CHECKING:
    from sampan.sandbox.streams import Streams

_CHUNK = 64 << 10
_REPLAY_AHEAD = 256 << 10


class Client:
    """``owner``: waited for when slow (see streams). The socket is closed by ``close`` or once ``finish`` has
    delivered everything."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        options: AttachOptions,
        *,
        owner: bool,
        terminal: bool,
        streams: Streams,
    ) -> None:
        self.options = options
        self.owner = owner
        self.backlog = 0
        self._loop = loop
        self._sock = sock
        self._streams = streams
        self._queue: deque[memoryview] = deque()
        self._finishing = False
        self._input_open = True
        self._input_held = False
        self._replay: Iterator[tuple[int, bytes]] | None = None
        self._log: LogWriter | None = None
        self._frames = websocket.Decoder() if options.websocket else None
        self._keys: detach.DetachKeys | None = None
        if terminal and options.stdin:
            keys = options.detach_keys or detach.DEFAULT
            self._keys = detach.DetachKeys(detach.parse(keys))

    def begin(self, early: bytes) -> None:
        self._sock.setblocking(False)
        self._update()
        if early:
            self._hear(early)
        if self._replay is not None:
            self._pump_replay()

    def replay(self, log: LogWriter) -> None:
        """Send the log first; live output follows it without a gap."""
        self._log = log
        self._replay = replay_records(log.files())

    def output(self, stream: int, data: bytes) -> None:
        """Output of the process; a client that is still reading the log will find it there."""
        if self._replay is None and self._finishing is False:
            self._deliver(stream, data)

    def _deliver(self, stream: int, data: bytes) -> None:
        if not (self.options.stderr if stream == 2 else self.options.stdout):
            return
        if self._frames is not None:
            self._send(websocket.header(len(data)), data)
        elif self.options.multiplex:
            self._send(stdcopy.header(stream, len(data)), data)
        else:
            self._send(data)

    def finish(self) -> None:
        """Nothing more will come: close once everything is delivered."""
        self._finishing = True
        self._close_if_done()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._queue.clear()
            self.backlog = 0
            self._streams.gone(self)

    def resume_input(self) -> None:
        if self._input_held:
            self._input_held = False
            self._update()

    # -- readiness ------------------------------------------------------------------------------------

    def _update(self) -> None:
        if self._sock.fileno() < 0:
            return
        events = WRITE if self._queue else 0
        if self._input_open and not self._input_held:
            events |= READ
        self._loop.watch(self._sock.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & READ:
            self._receive()
        if events & WRITE:
            self._flush()
        elif events & HANGUP and not events & READ:
            self.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            # Half-closed: the client has no more input and may still wait for output.
            self._input_open = False
            if self.options.stdin:
                self._streams.input_ended()
            self._update()
            return
        self._hear(data)

    def _hear(self, data: bytes) -> None:
        """What the client sent, framed or not."""
        if self._frames is None:
            self._take_input(data)
            return
        try:
            frames = self._frames.feed(data)
        except websocket.ProtocolError:
            self.close()
            return
        for opcode, payload in frames:
            if self._sock.fileno() < 0:
                return
            if opcode == websocket.BINARY:
                self._take_input(payload)
            elif opcode == websocket.PING:
                self._send(websocket.frame(payload, websocket.PONG))
            elif opcode == websocket.CLOSE:
                self._send(websocket.frame(payload, websocket.CLOSE))
                self.close()

    def _take_input(self, data: bytes) -> None:
        if not self.options.stdin:
            return
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        if data and not self._streams.input(data):
            self._input_held = True
            self._update()
        if detached:
            self._streams.detached()
            self.close()

    # -- delivery -------------------------------------------------------------------------------------

    def _send(self, *pieces: bytes) -> None:
        if self._sock.fileno() < 0:
            return
        sent = 0 if self._queue else self._try_send(*pieces)
        waits = False
        for piece in pieces:
            if sent < len(piece):
                view = memoryview(piece)[sent:]
                self._queue.append(view)
                self.backlog += len(view)
                waits = True
            sent = max(0, sent - len(piece))
        if waits:
            self._update()
            self._streams.backlog_changed(self)

    def _try_send(self, *pieces: bytes | memoryview) -> int:
        """How much was sent; all of it when there is nobody who takes it."""
        try:
            return self._sock.sendmsg(pieces)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            return sum(map(len, pieces))

    def _flush(self) -> None:
        while self._queue:
            view = self._queue[0]
            sent = self._try_send(view)
            if self._sock.fileno() < 0:
                return
            self.backlog -= sent
            if sent < len(view):
                self._queue[0] = view[sent:]
                break
            self._queue.popleft()
        self._streams.backlog_changed(self)
        if self._replay is not None and self.backlog < _REPLAY_AHEAD:
            self._pump_replay()
        self._update()
        self._close_if_done()

    def _pump_replay(self) -> None:
        while self._replay is not None and self.backlog < _REPLAY_AHEAD:
            record = next(self._replay, None)
            if record is not None:
                self._deliver(*record)
                continue
            self._replay = None
            if self._log is not None:
                for stream, data in self._log.pending():
                    self._deliver(stream, data)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._finishing and not self._queue and self._replay is None:
            with suppress(OSError):
                if self._frames is not None:
                    self._sock.send(websocket.frame(b"", websocket.CLOSE))
                self._sock.shutdown(socket.SHUT_WR)
                # Input left unread at the close would reach the client as a reset instead of an end.
                while self._sock.recv(_CHUNK):
                    pass
            self.close()
