"""The contract as people and SROS 2 read it: ``docs/reference/contract.md`` and the policies in ``config/sros2``.

``make reference`` writes them anew; a test fails as long as they are not what the contract says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from battery_sorting.line.contract import (
    CONTROLLER,
    LIFECYCLE_SERVICES,
    LIFECYCLE_TOPIC,
    PARAMETERS,
    QUALITIES,
    STANDARD_SERVICES,
    STANDARD_TOPICS,
    Contract,
    NodeContract,
    Service,
    Topic,
    parameters_of,
)
from battery_sorting.line.contract_watch import PAGE
from battery_sorting.lines import LINES

EXAMPLE = Path("examples/own_classifier.py")


def files(root: Path) -> dict[Path, str]:
    """What is to stand in each of the files that follow from the contract, in the source tree ``root``."""
    policies = {Path(f"config/sros2/{name}.xml"): policy(kind.contract) for name, kind in LINES.items()}
    text, example = ((root / name).read_text(encoding="utf-8") for name in (PAGE, EXAMPLE))
    return {Path(PAGE): page(text, example), **policies}


# ---- the page ----


def page(text: str, example: str) -> str:
    """``text`` of ``docs/reference/contract.md``, with what stands between its marks as the contract says.

    Raises:
        ValueError: A mark is missing.
    """
    blocks = {
        "example": f"```python\n{example.rstrip()}\n```",
        "qualities": _qualities(),
        "parameters": _parameters(),
        "standard": _standard(),
        **{name: "\n\n".join(_line(kind.contract)) for name, kind in LINES.items()},
    }
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, found, rest = text.partition(begin)
        _, also_found, after = rest.partition(end)
        if not (found and also_found):
            raise ValueError(f"docs/reference/contract.md: {(begin if not found else end).strip()} is missing")
        text = f"{before}{begin}{block}\n{end}{after}"
    return text


def _qualities() -> str:
    return _table(
        ("name", "QoS", "depth", "for"),
        [
            (f"`{name}`", str(quality), str(quality.depth), quality.why.replace("`", ""))
            for name, quality in QUALITIES.items()
        ],
    )


def _parameters() -> str:
    return _table(
        ("parameter", "default", "of", "meaning"),
        [
            (f"`{one.name}`", _default(one.default), ", ".join(one.nodes) or "all nodes", one.meaning)
            for one in PARAMETERS
        ],
    )


def _standard() -> str:
    every, lifecycle = ([f"~/{name}" for name in names] for names in (STANDARD_SERVICES, LIFECYCLE_SERVICES))
    return (
        f"- every node: topics {_names(STANDARD_TOPICS)}; services {_names(every)}\n"
        f"- all but the line controller, which are lifecycle nodes: topic `~/{LIFECYCLE_TOPIC}`; services "
        f"{_names(lifecycle)}"
    )


def _line(contract: Contract) -> Iterator[str]:
    yield _table(
        ("topic", "type", "QoS", "from", "to", "decides", "from an inactive node", "meaning"),
        [
            (
                f"`{topic.name}`",
                f"`{topic.type}`",
                topic.quality,
                ", ".join(topic.publishers),
                ", ".join(topic.subscribers) or "people",
                "yes" if topic.decides else "no",
                "–" if topic.publishers == (CONTROLLER,) else topic.inactive,
                topic.meaning,
            )
            for topic in contract.topics
        ],
    )
    yield _table(
        ("service or action", "type", "called by", "decides", "meaning"),
        [
            (
                f"`{service.path}`",
                f"`{service.type}`",
                ", ".join(service.callers) or "people",
                "yes" if service.decides else "no",
                service.meaning,
            )
            for service in contract.services
        ],
    )
    for node in contract.nodes:
        yield from _node(contract, node)


def _node(contract: Contract, node: NodeContract) -> Iterator[str]:
    yield f"### {node.name}\n{node.work}"
    published = [topic for topic in contract.topics if node.name in topic.publishers]
    subscribed = [topic for topic in contract.topics if node.name in topic.subscribers]
    lines = [
        *_topic_lines("publish", published, node.name),
        *_topic_lines("subscribe to", subscribed, node.name),
        *_service_line("serves", [one for one in contract.services if one.node == node.name]),
        *_service_line("calls", [one for one in contract.services if node.name in one.callers]),
        f"- **role**: {node.role.meaning}",
        f"- **while it is missing**: {node.missing}",
        f"- **deactivated by a person**: {node.deactivated}",
        f"- **parameters**: {_names(one.name for one in parameters_of(node.name))}",
    ]
    yield "\n".join(lines)


def _topic_lines(verb: str, topics: Iterable[Topic], node: str) -> Iterator[str]:
    for topic in topics:
        must = topic.must_publish(node) if verb == "publish" else topic.must_subscribe(node)
        quality, modal = QUALITIES[topic.quality], "must" if must else "may"
        yield f"- **{modal}** {verb} `{topic.name}`: `{topic.type}`, {quality}, depth {quality.depth}"


def _service_line(verb: str, services: list[Service]) -> Iterator[str]:
    if verb == "serves":
        for one in services:
            kind = "action" if one.is_action else "service"
            yield f"- **{'must' if one.decides else 'may'}** offer the {kind} `{one.path}`: `{one.type}`"
    elif services:
        yield f"- calls {_names(one.path for one in services)}"


def _default(value: object) -> str:
    return "empty" if value == "" else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        .replace("| --- ", "|---")
        .replace("|--- |", "|---|")
    )


# ---- the policies ----


def policy(contract: Contract) -> str:
    """Policy of SROS 2 for a line that is called by its kind."""
    line = contract.kind
    parts = [_POLICY_HEAD.format(line=line)]
    for node in contract.nodes:
        parts.append(_enclave(line, node.name, _rights(contract, node.name)))
    parts.append(_enclave(line, "operator", {("services", "request"): set(contract.operator)}))
    return "".join(parts) + "  </enclaves>\n</policy>\n"


_POLICY_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<!--
SROS 2 policy of the {line} line that is called {line}: what each of its nodes may publish, subscribe, offer and
call, and an operator's `battery-sorting command`. docs/how-to/network.md tells how to use it. Written by
`make reference` from battery_sorting/line/contract.py; a test compares it with the running line. Names without a
slash are in the line's namespace, those with ~ in the node's.
-->
<policy version="0.2.0">
  <enclaves>
"""


def _rights(contract: Contract, node: str) -> dict[tuple[str, str], set[str]]:
    lifecycle = node != CONTROLLER
    served = [one for one in contract.services if one.node == node]
    called = [one for one in contract.services if node in one.callers]
    return {
        ("topics", "publish"): {
            *STANDARD_TOPICS,
            *([f"~/{LIFECYCLE_TOPIC}"] if lifecycle else []),
            *(topic.name for topic in contract.topics if node in topic.publishers),
        },
        ("topics", "subscribe"): {topic.name for topic in contract.topics if node in topic.subscribers},
        ("services", "reply"): {
            *(f"~/{name}" for name in (*STANDARD_SERVICES, *(LIFECYCLE_SERVICES if lifecycle else ()))),
            *(f"~/{one.name}" for one in served if not one.is_action),
        },
        ("services", "request"): {
            *(one.path for one in called if not one.is_action),
            *(() if lifecycle else (f"{name}/change_state" for name in contract.names if name != CONTROLLER)),
        },
        ("actions", "execute"): {one.path for one in served if one.is_action},
        ("actions", "call"): {one.path for one in called if one.is_action},
    }


def _enclave(line: str, node: str, rights: dict[tuple[str, str], set[str]]) -> str:
    text = [f'    <enclave path="/{line}/{node}">', "      <profiles>"]
    text.append(f'        <profile ns="/{line}" node="{node}">')
    for (group, right), names in rights.items():
        if names:
            tag = group.removesuffix("s")
            text.append(f'          <{group} {right}="ALLOW">')
            text += [f"            <{tag}>{name}</{tag}>" for name in sorted(names)]
            text.append(f"          </{group}>")
    text += ["        </profile>", "      </profiles>", "    </enclave>"]
    return "\n".join(text) + "\n"
