"""While a node is inactive nothing is published, and nothing of what was to be said is lost."""
# issue 16, 6

from __future__ import annotations

from types import SimpleNamespace

from battery_sorting.ros.held_publisher import HeldPublisher


def test_what_is_said_while_the_node_is_inactive_is_published_in_its_order_when_it_is_active_again():
    sent: list[int] = []
    node = SimpleNamespace(active=True)
    publisher = HeldPublisher(SimpleNamespace(publish=sent.append), lambda: node.active)
    publisher.publish(1)
    node.active = False
    publisher.publish(2)
    publisher.publish(3)
    publisher.flush()
    assert sent == [1]
    node.active = True
    publisher.publish(4)
    assert sent == [1, 2, 3, 4]
    publisher.flush()
    assert sent == [1, 2, 3, 4]


def test_what_waits_is_published_without_another_message():
    sent: list[int] = []
    node = SimpleNamespace(active=False)
    publisher = HeldPublisher(SimpleNamespace(publish=sent.append), lambda: node.active)
    publisher.publish(1)
    node.active = True
    publisher.flush()
    assert sent == [1]
