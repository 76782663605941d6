"""What the nodes of a line say to each other: the one place from which all else about it follows.

From here come the quality of service of every topic (`ros/qos.py`), whom the controller takes for a stranger
(`line/graph_watch.py`), what it misses or finds wrong at a node (`line/contract_watch.py`), what parameters mean
(`ros/parameters.py`), and the policies in ``config/sros2`` and the tables of ``docs/reference/contract.md``
(`runtime/contract_page.py`). A test compares it with the endpoints that the nodes really make.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

CLASSIFIER = "classifier"
CONTROLLER = "line_controller"
PLANT = "plant"

BATTERIES_IN_FLIGHT = 64
"""No belt line holds more batteries than this between the photo-eye and its end."""
HEARTBEAT_S = 0.2
"""Between two heartbeats of a node (s)."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of service of a topic, by the names of DDS.

    Attributes:
        reliable: What was lost on the way is sent again; else best effort.
        transient_local: Who comes later gets the last ``depth`` messages; else volatile.
        depth: So many messages are kept.
        why: What it is for.
    """

    reliable: bool
    transient_local: bool
    depth: int
    why: str

    def __str__(self) -> str:
        reliability = "reliable" if self.reliable else "best effort"
        return f"{reliability}, {'transient local' if self.transient_local else 'volatile'}"


QUALITIES = {
    "BATTERY_EVENT": Quality(
        True,
        True,
        BATTERIES_IN_FLIGHT,
        "What happened to a battery. A node that comes back gets the events of all that may be on the belt.",
    ),
    "EJECT_RESULT": Quality(
        True, True, 4 * BATTERIES_IN_FLIGHT, "As `BATTERY_EVENT`, for several reports of each battery."
    ),
    "BATTERY_IMAGE": Quality(
        True,
        True,
        16,
        "Frames that are a battery. Kept for a node that comes back, as many as pass in its absence.",
    ),
    "ORDER": Quality(
        True,
        False,
        BATTERIES_IN_FLIGHT,
        "Orders to hardware. Never delivered to a node that was not there when they were given.",
    ),
    "NOTICE": Quality(
        True,
        True,
        16,
        "What changed at a node, for the ledger. A node that comes back gets the last ones again.",
    ),
    "STATE": Quality(True, True, 1, "The last state counts."),
    "SHADOW": Quality(True, False, BATTERIES_IN_FLIGHT, "Verdicts that nobody acts on."),
    "STREAM": Quality(True, False, 10, "Frequent states and heartbeats: an old one is worth nothing."),
    "PREVIEW": Quality(False, False, 1, "Pictures for people."),
}
"""All that there are. The history is *keep last*; there is no deadline, lifespan or lease of liveliness."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic in the namespace of the line (with a leading slash: in none).

    Attributes:
        type: Of its messages, as ``package/msg/Name``.
        quality: Name of its quality of service in `QUALITIES`.
        publishers: Nodes that publish on it.
        subscribers: Nodes that subscribe to it.
        decides: The line decides by it: nobody else may publish on it, and the nodes must have it.
        optional: Subscribers that need not have it all the same.
        meaning: What it says, how often, and what happens when it stays away.
    """

    name: str
    type: str
    quality: str
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]
    decides: bool
    meaning: str
    optional: tuple[str, ...] = ()

    def must_publish(self, node: str) -> bool:
        """Whether the line can't do without ``node`` publishing it."""
        return self.decides and node in self.publishers

    def must_subscribe(self, node: str) -> bool:
        """Whether the line can't do without ``node`` subscribing to it."""
        return self.decides and node in self.subscribers and node not in self.optional


@dataclass(frozen=True, slots=True)
class Service:
    """A service (``~/name`` of its node) or an action (in the line's namespace).

    Attributes:
        type: As ``package/srv/Name`` or ``package/action/Name``.
        node: Who serves it.
        callers: Nodes that call it; a person always may.
        decides: The line can't do without it.
    """

    name: str
    type: str
    node: str
    callers: tuple[str, ...]
    decides: bool
    meaning: str

    @property
    def is_action(self) -> bool:
        """Whether it is an action."""
        return "/action/" in self.type

    @property
    def path(self) -> str:
        """Its name in the line's namespace."""
        return self.name if self.is_action else f"{self.node}/{self.name}"

    @property
    def witness(self) -> tuple[str, str]:
        """Name and type of the service in the graph by which it can be seen that it is there."""
        if not self.is_action:
            return self.path, self.type
        return f"{self.path}/_action/send_goal", f"{self.type}_SendGoal"


class Role(str, Enum):
    """What a process is to its line."""

    DEVICE = "device"
    """Talks to hardware."""
    DECISION = "decision"
    """Decides, or says what is decided by."""
    OBSERVER = "observer"
    """Looks on, records or shows: the line runs without it."""
    PLANT = "plant"
    """The simulated hardware."""

    def __str__(self) -> str:
        return self.value

    @property
    def required(self) -> bool:
        """Whether the line holds while it is missing."""
        return self is not Role.OBSERVER

    @property
    def meaning(self) -> str:
        """It, for a person."""
        more = {Role.OBSERVER: "observer: the line runs without it", Role.PLANT: "simulated hardware"}
        return more.get(self, self.value)


@dataclass(frozen=True, slots=True)
class NodeContract:
    """What a node is for, and what a person's ``deactivate`` means to it."""

    name: str
    role: Role
    work: str
    missing: str
    deactivated: str


@dataclass(frozen=True, slots=True)
class Contract:
    """All that the nodes of one kind of line say to each other.

    Attributes:
        operator: Services that a person calls by ``battery-sorting command``.
    """

    kind: str
    nodes: tuple[NodeContract, ...]
    topics: tuple[Topic, ...]
    services: tuple[Service, ...]
    operator: tuple[str, ...] = (f"{CONTROLLER}/command",)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return names_of(self.nodes)

    @property
    def observers(self) -> frozenset[str]:
        """Names of the nodes that the line runs without."""
        return frozenset(node.name for node in self.nodes if not node.role.required)

    def role(self, name: str) -> Role:
        """What the node ``name`` of the line is to it."""
        return next(node.role for node in self.nodes if node.name == name)

    def topics_between(self, nodes: Iterable[str]) -> tuple[Topic, ...]:
        """Topics that any of ``nodes`` has, but for those without namespace."""
        wanted = set(nodes)
        return tuple(
            topic
            for topic in self.topics
            if not topic.name.startswith("/") and wanted & {*topic.publishers, *topic.subscribers}
        )


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a node; all are read when it starts, and read-only from then on.

    Attributes:
        nodes: Whose it is; empty: of every node.
        default: Of which the type follows.
    """

    name: str
    default: Any
    meaning: str
    nodes: tuple[str, ...] = ()


def names_of(nodes: Iterable[NodeContract]) -> tuple[str, ...]:
    """Their names."""
    return tuple(node.name for node in nodes)


USE_SIM_TIME = "use_sim_time"
_AT_START = "Read once: to change it, start the line anew."
PARAMETERS = (
    Parameter("site_file", "", f"File with the checked site (site.json in the run folder). {_AT_START}"),
    Parameter("recipe_file", "", f"File with the checked recipe (recipe.json in the run folder). {_AT_START}"),
    Parameter("run_dir", "", f"Run folder: ledger, pictures and logs. {_AT_START}"),
    Parameter(
        "run_id",
        "",
        f"The start of the line that this process belongs to; empty if it was started by hand. {_AT_START}",
    ),
    Parameter(
        "exit_with_parent",
        False,
        f"Whether the node makes safe and ends when the process that started it is gone. {_AT_START}",
    ),
    Parameter(
        USE_SIM_TIME,
        False,
        "Whether waits for data go by /clock, as in a replay. Read once: start the line with it.",
    ),
    Parameter(
        "auto_start",
        False,
        "Whether the line starts as soon as all nodes are ready, without a command. Default: only on a simulated "
        f"site. {_AT_START}",
        (CONTROLLER,),
    ),
    Parameter("feedback_s", 1.0, f"Seconds between two feedbacks of a test. {_AT_START}", ("tester",)),
    Parameter(
        "safe_s",
        60.0,
        "Seconds for which a test tries to confirm that its channel's current is off, before the channel counts as "
        f"live. {_AT_START}",
        ("tester",),
    ),
)
"""Besides, rclpy declares ``start_type_description_service`` at every node."""

STANDARD_TOPICS = ("/parameter_events", "/rosout")
"""What every ROS node publishes."""
STANDARD_SERVICES = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "get_type_description",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
)
"""What every ROS node serves, under ``~/``."""
LIFECYCLE_TOPIC = "transition_event"
LIFECYCLE_SERVICES = (
    "change_state",
    "get_available_states",
    "get_available_transitions",
    "get_state",
    "get_transition_graph",
)
"""What every lifecycle node serves, under ``~/``: all nodes but the controller."""


def shared_topics(nodes: tuple[str, ...], moving: tuple[str, ...]) -> tuple[Topic, ...]:
    """What the nodes of every line have: heartbeats, the line's state, diagnostics.

    Args:
        nodes: Of the line, with its controller.
        moving: Those of them that move something.
    """
    others = tuple(name for name in nodes if name != CONTROLLER)
    return (
        Topic(
            "heartbeat",
            "battery_sorting/msg/Heartbeat",
            "STREAM",
            others,
            (CONTROLLER,),
            True,
            f"How a node is, every {HEARTBEAT_S:g} s and at once on an emergency stop. One that stays away for "
            "`timeouts.heartbeat_s` (1 s) is the alarm `node_NAME`: the line holds, unless it is an observer, and "
            "goes on when it is back.",
        ),
        Topic(
            "line_state",
            "battery_sorting/msg/LineState",
            "STREAM",
            (CONTROLLER,),
            nodes,
            True,
            f"State of the line, on change and every {HEARTBEAT_S:g} s. Who moves things makes safe when it stays "
            "away for 1 s.",
            tuple(name for name in nodes if name not in moving),
        ),
        Topic(
            "/diagnostics",
            "diagnostic_msgs/msg/DiagnosticArray",
            "STREAM",
            nodes,
            (),
            False,
            "For people, once per second.",
        ),
    )


COMMAND = Service(
    "command",
    "battery_sorting/srv/LineCommand",
    CONTROLLER,
    (),
    True,
    "Commands of a person or another system (docs/how-to/operating.md).",
)

_BELT_NODES = (
    NodeContract(
        "conveyor",
        Role.DEVICE,
        "Polls the belt's PLC: state, photo-eyes, run and stop, watchdog.",
        "the line holds; without it the PLC's watchdog stops the belt",
        "the belt is stopped",
    ),
    NodeContract(
        "camera",
        Role.DEVICE,
        "Tells which frame shows which battery.",
        "the line holds; a battery without a picture goes to *others*",
        "the belt is stopped by the line; frames are still read",
    ),
    NodeContract(
        "classifier",
        Role.DECISION,
        "Names the type of the battery in each frame.",
        "the line holds; a battery without a verdict goes to *others*",
        "the belt is stopped by the line; frames that come are still judged",
    ),
    NodeContract(
        "ejector",
        Role.DEVICE,
        "Hands orders to the PLC's valves ahead of time, and tells what became of them.",
        "the line holds; what is in the PLC's queue fires",
        "what has not fired is cancelled",
    ),
    NodeContract(
        CONTROLLER,
        Role.DECISION,
        "Decides, writes the ledger, orders; brings the other nodes up.",
        "`conveyor` stops the belt after 1 s",
        "it has no life cycle",
    ),
    NodeContract(
        "archivist",
        Role.OBSERVER,
        "Files pictures and what comes beside: shadow verdicts, model changes, alarms.",
        "the line goes on, with the alarm `node_archivist`; pictures and what comes beside are lost, but for the "
        "last 16 of each",
        "the line goes on, with the alarm; what comes is still written",
    ),
)
NODES = names_of(_BELT_NODES)
"""Nodes of the belt line in their start order, each with an executable of its name."""

BELT_CONTRACT = Contract(
    "belt",
    _BELT_NODES,
    (
        *shared_topics(NODES, ("conveyor",)),
        Topic(
            "belt_state",
            "battery_sorting/msg/BeltState",
            "STREAM",
            ("conveyor",),
            (CONTROLLER,),
            True,
            "The PLC's state, 50 times per second. Without it for `timeouts.belt_state_s` (0.5 s) the PLC counts "
            "as lost (alarm `belt_state`).",
        ),
        Topic(
            "battery_detection",
            "battery_sorting/msg/BatteryDetection",
            "BATTERY_EVENT",
            ("conveyor",),
            (CONTROLLER, "camera", "ejector"),
            True,
            "A battery has reached the photo-eye: here it gets its id. At once, for every edge; coming twice does "
            "no harm.",
        ),
        Topic(
            "exit_detection",
            "battery_sorting/msg/ExitDetection",
            "BATTERY_EVENT",
            ("conveyor",),
            (CONTROLLER,),
            True,
            "Something has passed the eye at the belt's end, at once. Missing numbers are the alarm `reports`.",
        ),
        Topic(
            "battery_image",
            "battery_sorting/msg/BatteryImage",
            "BATTERY_IMAGE",
            ("camera",),
            ("classifier", "archivist"),
            True,
            "The frame of a battery, or within `timeouts.frame_s` (0.5 s) the news that there is none.",
            ("archivist",),
        ),
        Topic(
            "image_preview",
            "sensor_msgs/msg/Image",
            "PREVIEW",
            ("camera",),
            (),
            False,
            "Twice per second, while somebody subscribes.",
        ),
        Topic(
            "battery_type",
            "battery_sorting/msg/BatteryType",
            "BATTERY_EVENT",
            ("classifier",),
            (CONTROLLER, "archivist"),
            True,
            "The verdict on a battery, once for each `battery_image`, in time for its ejector: late ones go to "
            "*others*, and `alarms.no_verdict_in_a_row` batteries without one hold the line. What no node can have "
            "sent (a confidence above 1, a label that is none of the labels) is dropped.",
            ("archivist",),
        ),
        Topic(
            "shadow_type",
            "battery_sorting/msg/BatteryType",
            "SHADOW",
            ("classifier",),
            ("archivist",),
            False,
            "The verdict of a candidate, for the ledger.",
        ),
        Topic(
            "model_change",
            "battery_sorting/msg/ModelChange",
            "NOTICE",
            ("classifier",),
            ("archivist",),
            False,
            "Another model decides from now on.",
        ),
        Topic(
            "alarm",
            "battery_sorting/msg/Alarm",
            "NOTICE",
            ("classifier", "ejector"),
            ("archivist",),
            False,
            "Something for a person to look at; the line goes on.",
        ),
        Topic(
            "eject_command",
            "battery_sorting/msg/EjectCommand",
            "ORDER",
            (CONTROLLER,),
            ("ejector",),
            True,
            "Order to blow a battery into a bin; each token once.",
        ),
        Topic(
            "eject_result",
            "battery_sorting/msg/EjectResult",
            "EJECT_RESULT",
            ("ejector",),
            (CONTROLLER,),
            True,
            "What became of an order: each change, at once. Missing numbers are the alarm `reports`.",
        ),
        Topic(
            "disposition",
            "battery_sorting/msg/Disposition",
            "BATTERY_EVENT",
            (CONTROLLER,),
            (),
            False,
            "The last word on a battery, for other systems.",
        ),
    ),
    (
        Service(
            "set_belt",
            "battery_sorting/srv/SetBelt",
            "conveyor",
            (CONTROLLER,),
            True,
            "Runs or stops the belt; answers within 0.4 s, or is asked again.",
        ),
        Service(
            "reset", "std_srvs/srv/Trigger", "conveyor", (CONTROLLER,), True, "Acknowledges the faults of the PLC."
        ),
        Service("clear", "std_srvs/srv/Trigger", "ejector", (CONTROLLER,), True, "Cancels what has not fired."),
        Service(
            "load_model",
            "battery_sorting/srv/LoadModel",
            "classifier",
            (),
            False,
            "Loads another model while the belt runs.",
        ),
        COMMAND,
    ),
    ("classifier/load_model", f"{CONTROLLER}/command"),
)

_EV_NODES = (
    NodeContract(
        "inspection",
        Role.DEVICE,
        "Owns the station's PLC and cameras; looks at each cell from both sides and releases it.",
        "the line holds; the cell stays in the station",
        "no order more; the PLC ends the one that it does",
    ),
    NodeContract(
        CONTROLLER,
        Role.DECISION,
        "Decides, writes the ledger, orders; brings the other nodes up.",
        "robot and station begin nothing more after 1 s",
        "it has no life cycle",
    ),
)
_MEASURING_NODES = (
    NodeContract(
        "robot",
        Role.DEVICE,
        "Carries one cell at a time.",
        "the line holds; the robot ends its move by itself",
        "the arm stands where it is, and goes home when the line goes on",
    ),
    NodeContract(
        "tester",
        Role.DEVICE,
        "Measures cells, one per channel.",
        "the line holds; the tester's watchdog switches all channels off",
        "all tests end, their channels are switched off",
    ),
    NodeContract(
        "grader",
        Role.DECISION,
        "Grades cells and puts them together to packs or groups.",
        "the line holds",
        "grades and groups are refused, and asked for again",
    ),
)
EV_NODES = names_of(_EV_NODES)
MEASURING_NODES = names_of(_MEASURING_NODES)
"""Nodes that an EV line has besides where cells are measured."""

EV_CONTRACT = Contract(
    "ev",
    (*_EV_NODES, *_MEASURING_NODES),
    (
        *shared_topics((*EV_NODES, *MEASURING_NODES), ("inspection", "robot", "tester")),
        Topic(
            "station_state",
            "battery_sorting/msg/StationState",
            "STATE",
            ("inspection",),
            (CONTROLLER,),
            True,
            "State of the station, 5 times per second, also while the node is inactive.",
        ),
        Topic(
            "cell_appearance",
            "battery_sorting/msg/CellAppearance",
            "BATTERY_EVENT",
            ("inspection",),
            (CONTROLLER,),
            True,
            "What was seen of a cell: one message per view, and one (`fused`) for the verdict, after it stands in "
            "the ledger. Waits while the node is inactive.",
        ),
        Topic(
            "annotated_image",
            "sensor_msgs/msg/Image",
            "PREVIEW",
            ("inspection",),
            (),
            False,
            "Each view with what was found, while somebody subscribes.",
        ),
    ),
    (
        Service(
            "inspect_cell",
            "battery_sorting/action/InspectCell",
            "inspection",
            (CONTROLLER,),
            True,
            "Inspects one cell from loading to release, and records it.",
        ),
        Service(
            "flip_cell",
            "battery_sorting/action/FlipCell",
            "inspection",
            (),
            False,
            "Flips by hand; can't be cancelled.",
        ),
        Service(
            "move_cell",
            "battery_sorting/action/MoveCell",
            "robot",
            (CONTROLLER,),
            True,
            "Carries one cell; cancelled, it is brought back to where it was.",
        ),
        Service(
            "test_cell",
            "battery_sorting/action/TestCell",
            "tester",
            (CONTROLLER,),
            True,
            "Measures one cell; however it ends, the channel is switched off.",
        ),
        Service(
            "grade_cells", "battery_sorting/srv/GradeCells", "grader", (CONTROLLER,), True, "Grades measured cells."
        ),
        Service(
            "regroup_cells",
            "battery_sorting/action/RegroupCells",
            "grader",
            (CONTROLLER,),
            True,
            "Builds packs or groups of a batch.",
        ),
        COMMAND,
    ),
)


def parameters_of(node: str) -> tuple[Parameter, ...]:
    """Parameters of a node of the package."""
    return tuple(one for one in PARAMETERS if not one.nodes or node in one.nodes)
