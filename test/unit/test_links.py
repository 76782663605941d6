"""The links that the soak puts between drivers and devices. # issue 14, point 18"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.links import Links

pytestmark = pytest.mark.realtime


class Echo:
    """A device that sends back what it gets."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="echo", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), name="echo client", daemon=True).start()

    @staticmethod
    def _serve(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


@pytest.fixture
def links() -> Iterator[Links]:
    echo = Echo()
    with Links(["plc"]) as links:
        links.start({"plc": echo.port})
        yield links
    echo.close()


def dial(links: Links, timeout_s: float = 2.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", links.ports["plc"]), timeout=timeout_s)


def echoed(driver: socket.socket, data: bytes) -> bytes:
    driver.sendall(data)
    got = b""
    while len(got) < len(data):
        more = driver.recv(65536)
        if not more:
            raise EOFError
        got += more
    return got


def test_a_link_without_trouble_passes_on_everything_in_its_order(links):
    data = bytes(range(256)) * 20_000
    with dial(links) as driver:
        sender = threading.Thread(target=driver.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            got += driver.recv(65536)
        sender.join(5)
    assert got == data


def test_a_cut_link_resets_what_stands_refuses_what_comes_and_is_back_at_the_same_port(links):
    with dial(links) as driver:
        assert echoed(driver, b"one") == b"one"
        links.set("plc", "cut")
        with pytest.raises((ConnectionResetError, EOFError)):
            echoed(driver, b"two")
    with pytest.raises(ConnectionRefusedError):
        dial(links)
    links.set("plc", "none")
    with dial(links) as driver:
        assert echoed(driver, b"three") == b"three"


def test_a_slow_link_delays_both_ways_and_nothing_overtakes_when_it_is_quick_again(links):
    links.set("plc", "delay", delay_s=0.2)
    with dial(links) as driver:
        began = time.monotonic()
        assert echoed(driver, b"slow") == b"slow"
        assert 0.4 <= time.monotonic() - began < 1.5
        driver.sendall(b"first,")
        time.sleep(0.05)
        links.set("plc", "none")
        driver.sendall(b"second")
        got = b""
        while len(got) < len(b"first,second"):
            got += driver.recv(100)
        assert got == b"first,second"


def test_a_spoilt_link_answers_with_noise_that_is_the_same_for_the_same_seed(links):
    links.set("plc", "garble", share=1.0, seed=5)
    with dial(links) as driver:
        first = echoed(driver, b"message")
    links.set("plc", "garble", share=1.0, seed=5)
    with dial(links) as driver:
        assert echoed(driver, b"message") == first != b"message"


def test_a_half_open_link_tells_nobody_and_resets_what_sends_on_it_afterwards(links):
    with dial(links, 0.3) as before:
        assert echoed(before, b"one") == b"one"
        links.set("plc", "half_open")
        before.sendall(b"two")
        with pytest.raises(TimeoutError):
            before.recv(1)
        with dial(links, 0.3) as during, pytest.raises(TimeoutError):
            echoed(during, b"three")
        links.set("plc", "none")
        with pytest.raises(TimeoutError):
            before.recv(1)  # who only listens is not told
        with pytest.raises((ConnectionResetError, BrokenPipeError, EOFError)):
            echoed(before, b"four")
    with dial(links) as after:
        assert echoed(after, b"five") == b"five"


def test_a_driver_that_has_tcp_probe_its_connection_is_told_that_it_is_half_open(links):
    with dial(links, 2.0) as driver:
        driver.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert echoed(driver, b"one") == b"one"
        links.set("plc", "half_open")
        links.set("plc", "none")
        with pytest.raises(ConnectionResetError):
            driver.recv(1)
