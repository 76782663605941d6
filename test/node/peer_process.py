"""The other end of `peer.Peer`: a ROS node, told over stdin what to do; it tells on stdout what it hears."""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import struct
import sys
import threading
import time
from typing import Any

import rclpy
from rclpy.action.client import ActionClient
from rclpy.executors import SingleThreadedExecutor

from battery_sorting.ros import qos
from battery_sorting.runtime.ask import ACQUAINTANCE_S

LENGTH = struct.Struct("!I")


class Output:
    """Tells things to the test, one after the other."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "wb")

    def tell(self, *what: Any) -> None:
        data = pickle.dumps(what)
        self._pipe.write(LENGTH.pack(len(data)) + data)
        self._pipe.flush()


class PeerNode:
    """Carries out one request after the other, all in the executor's thread."""

    def __init__(self, namespace: str, name: str) -> None:
        self.node = rclpy.create_node(name, namespace=namespace)
        self._output = Output()
        self._requests: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._repeated: dict[str, Any] = {}
        self._found_at: dict[Any, float] = {}
        self._unsent: dict[str, list[tuple[int, Any]]] = {}
        self._goals: dict[int, Any] = {}
        threading.Thread(target=self._read, daemon=True).start()
        self.node.create_timer(0.005, self._work)
        self._output.tell("ready")

    def _read(self) -> None:
        pipe = os.fdopen(os.dup(0), "rb")
        while head := pipe.read(LENGTH.size):
            self._requests.put(pickle.loads(pipe.read(LENGTH.unpack(head)[0])))
        os._exit(0)

    def _work(self) -> None:
        while not self._requests.empty():
            name, *arguments = self._requests.get()
            getattr(self, name)(*arguments)
        self._send_goals()

    def listen(self, type_: type, topic: str, profile: str) -> None:
        self.node.create_subscription(
            type_, topic, lambda message: self._output.tell("heard", topic, message), getattr(qos, profile)
        )

    def advertise(self, type_: type, topic: str, profile: str) -> None:
        self._publishers[topic] = self.node.create_publisher(type_, topic, getattr(qos, profile))

    def publish(self, topic: str, message: Any) -> None:
        self._publishers[topic].publish(message)

    def listeners(self, number: int, topic: str) -> None:
        self._output.tell("answer", number, self._publishers[topic].get_subscription_count())

    def repeat(self, topic: str, message: Any, period_s: float) -> None:
        """Publish this message again and again; a period of 0 ends it."""
        if topic in self._repeated:
            self.node.destroy_timer(self._repeated.pop(topic))
        if period_s:
            self._repeated[topic] = self.node.create_timer(period_s, lambda: self.publish(topic, message))

    def call(self, number: int, module: str, type_name: str, service: str, request: Any) -> None:
        client = self._clients.get(service)
        if client is None:
            type_ = getattr(importlib.import_module(module), type_name)
            client = self._clients[service] = self.node.create_client(type_, service)
        if not self._is_acquainted(client, client.service_is_ready()):
            self._output.tell("answer", number, None)
            return
        client.call_async(request).add_done_callback(
            lambda future: self._output.tell("answer", number, future.result())
        )

    def act(self, number: int, module: str, type_name: str, action: str, goal: Any) -> None:
        if action not in self._clients:
            type_ = getattr(importlib.import_module(module), type_name)
            self._clients[action] = ActionClient(self.node, type_, action)
        self._unsent.setdefault(action, []).append((number, goal))

    def _send_goals(self) -> None:
        for action, goals in self._unsent.items():
            client = self._clients[action]
            if goals and self._is_acquainted(client, client.server_is_ready()):
                for number, goal in goals:
                    self._send(client, number, goal)
                goals.clear()

    def _send(self, client: ActionClient, number: int, goal: Any) -> None:
        def on_accepted(future: Any) -> None:
            handle = self._goals[number] = future.result()
            if not handle.accepted:
                self._output.tell("answer", number, None)
                return
            handle.get_result_async().add_done_callback(on_result)

        def on_result(future: Any) -> None:
            self._output.tell("status", number, future.result().status)
            self._output.tell("answer", number, future.result().result)

        client.send_goal_async(goal).add_done_callback(on_accepted)

    def _is_acquainted(self, client: Any, is_found: bool) -> bool:
        if not is_found:
            self._found_at.pop(client, None)
            return False
        return time.monotonic() - self._found_at.setdefault(client, time.monotonic()) >= ACQUAINTANCE_S

    def cancel(self, number: int) -> None:
        self._goals[number].cancel_goal_async()


def main() -> None:
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(PeerNode(*sys.argv[1:]).node)
    executor.spin()


main()
