"""The classifier: bad pictures are rejected, bad models refused, and a new model takes over without losing one."""

from __future__ import annotations

import array
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from battery_sorting.msg import Alarm, BatteryImage, BatteryType, Heartbeat, ModelChange
from battery_sorting.srv import LoadModel
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import ROOT, run_cli, wait_for
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import Image
from support.endless_model import write_endless_model
from support.tiny_cell import GREEN, with_model, write_family
from support.tiny_model import battery, write_model

from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.runtime.demo import BeltJob
from battery_sorting.vision.synthetic.renderer import make_renderer
from battery_sorting.vision.training.data import random_item

pytestmark = pytest.mark.ros

MODEL = ROOT / "models" / "battery_type" / "1"


def image(battery_id: str, now, pixels: np.ndarray, **changes) -> BatteryImage:
    height, width = pixels.shape[:2]
    fields = {"encoding": "rgb8", "height": height, "width": width, "step": width * 3} | changes
    data = array.array("B", pixels.tobytes())
    return BatteryImage(header=now, battery_id=battery_id, image=Image(data=data, **fields))


def test_classifier_names_good_pictures_and_rejects_bad_ones(bench):
    peer = bench.set_up()
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    node = bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
    now = bench.now()
    rendered = make_renderer(None, 1).render(random_item("Duracell_Alk", 5), speed_mps=0.0, t_s=1.0)
    messages = [
        image("good", now, rendered),
        image("short", now, rendered, height=2000),
        image("odd", now, rendered, encoding="yuv422"),
        image("none", now, np.zeros((0, 0, 3), np.uint8)),
        image("black", now, np.zeros_like(rendered)),
        BatteryImage(header=now, battery_id="dropped", error="no_image"),
        image("again", now, rendered),
    ]
    for message in messages:
        peer.publish("battery_image", message)
    wait_for(lambda: len(types) == len(messages), "a verdict on each")
    verdicts = {verdict.battery_id: verdict for verdict in types}
    assert [verdict.battery_id for verdict in types] == [message.battery_id for message in messages]
    for name in ("short", "odd", "none", "black"):
        assert (verdicts[name].reason, verdicts[name].accepted, verdicts[name].label) == ("bad_image", False, "")
    assert verdicts["dropped"].reason == "no_image" and np.isnan(verdicts["dropped"].confidence)
    for name in ("good", "again"):
        assert verdicts[name].label == "Duracell_Alk"
        assert dict(zip(verdicts[name].labels, verdicts[name].scores, strict=True))[
            "Duracell_Alk"
        ] == pytest.approx(verdicts[name].confidence)
        assert verdicts[name].model == "battery_type/1" and verdicts[name].inference_s > 0
    assert node.exit_code is None


def test_model_that_does_not_fit_leaves_the_node_unconfigured_until_it_does(bench, tmp_path):
    model = write_model(tmp_path / "tiny" / "1")
    whole = (model / "card.json").read_text()
    bench.set_up(*with_model(model))
    card = json.loads((model / "card.json").read_text())
    bench.start("classifier")
    for changes, said in (
        ({"labels": card["labels"][1:]}, "labels"),
        ({"sha256": "0" * 64}, "sha256"),
        (None, "card can't be read"),
    ):
        (model / "card.json").unlink()
        if changes is not None:
            (model / "card.json").write_text(json.dumps(card | changes))
        assert not bench.change("classifier", "configure")
        beat = bench.wait_for_heartbeat(lambda beat: not beat.ok, "heartbeat tells it")
        assert beat.lifecycle_state == 1 and str(model) in beat.detail
        assert said in beat.detail
    (model / "card.json").write_text(whole)
    assert bench.change("classifier", "configure")
    bench.wait_for_heartbeat(lambda beat: beat.ok and beat.lifecycle_state == 2, "node is configured")


@pytest.fixture
def family(tmp_path) -> Path:
    return write_family(tmp_path / "models" / "tiny", "1", "2")


def change_card(model: Path, **changes) -> None:
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | changes))


# issue 15, C11
def test_network_that_never_ends_and_a_pipe_hold_no_later_model_up(bench, family):
    write_endless_model(family / "3", "3")
    write_model(family / "4", "4")
    (family / "4" / "model.onnx").unlink()
    os.mkfifo(family / "4" / "model.onnx")
    bench.set_up(*with_model(family))
    bench.bring_up("classifier")

    def candidate(version: str) -> str:
        command = ("models", "candidate", str(family / version))
        result = run_cli(*command, timeout_s=200.0, env={**os.environ, **bench.plan.environment})
        return result.stdout + result.stderr

    assert "is a pipe and no plain file" in candidate("4")
    assert "come to an end within" in candidate("3")
    assert "line belt is shadowed by tiny/2" in candidate("2")
    assert bench.heartbeats[-1].ok


def test_new_model_takes_over_between_two_frames_and_no_battery_is_lost(bench, family):
    peer = bench.set_up(*with_model(family))
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    changes = peer.listen(ModelChange, "model_change", "NOTICE")
    bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
    sent: list[str] = []

    def send() -> None:
        """One more frame, as soon as all but the last two have their verdict."""
        wait_for(lambda: len(types) >= len(sent) - 2, "verdicts on the frames so far")
        sent.append(f"battery-{len(sent)}")
        peer.publish("battery_image", image(sent[-1], bench.heartbeats[-1].header, GREEN))

    for _ in range(5):
        send()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(peer.call, LoadModel, "classifier/load_model", model=str(family / "2"))
        while not answer.done():
            send()
    for _ in range(5):
        send()
    wait_for(lambda: len(types) == len(sent), "a verdict on each")
    result = answer.result()
    assert (result.success, result.model) == (True, "tiny/2"), result.message
    assert f"until the next start: the site's model is {family}" in result.message
    assert [verdict.battery_id for verdict in types] == sent
    models = [verdict.model for verdict in types]
    assert sorted(models) == models and set(models) == {"tiny/1", "tiny/2"}
    assert all(verdict.accepted and verdict.label == "Green" and verdict.views >= 1 for verdict in types)
    wait_for(lambda: len(changes) == 2, "both models are announced")
    assert [(change.model, change.previous) for change in changes] == [
        ("tiny/1", ""),
        ("tiny/2", "tiny/1"),
    ]
    assert changes[1].folder == str(family / "2") and len(changes[1].sha256) == 64 and not changes[1].shadow


def test_model_that_can_not_take_over_is_refused_and_the_old_one_goes_on(bench, family):
    peer = bench.set_up(*with_model(family))
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")

    def load(name: str) -> LoadModel.Response:
        return peer.call(LoadModel, "classifier/load_model", model=name)

    change_card(family / "2", sha256="0" * 64)
    assert "sha256" in load(str(family / "2")).message
    shutil.copy(family / "1" / "card.json", family / "2")
    change_card(family / "2", version="2", labels=["Red", "Varta_Alk", "Blue"])
    answer = load(str(family / "2"))
    assert (answer.success, answer.model) == (False, "tiny/1")
    assert "type 'Varta_Alk' has no route: add routes.Varta_Alk to the recipe" in answer.message
    assert "there is no folder 'tiny/77'" in load("tiny/77").message
    assert "is empty" in load("").message
    peer.publish("battery_image", image("a", bench.now(), GREEN))
    wait_for(lambda: types, "a verdict")
    assert types[0].model == "tiny/1"


def test_operator_activates_a_version_and_goes_back_while_the_cell_runs(bench, family):
    peer = bench.set_up(*with_model(family))
    changes = peer.listen(ModelChange, "model_change", "NOTICE")
    bench.bring_up("classifier")

    def models(*arguments: str) -> str:
        command = ("models", *arguments, "--recipe", str(bench.plan.recipe_file))
        result = run_cli(*command, env={**os.environ, **bench.plan.environment})
        assert result.returncode == 0, result.stderr
        return result.stdout

    said = models("activate", str(family / "2"))
    assert f"tiny/2 is active in {family}\nline belt decides with tiny/2 now\n" == said
    assert "line belt decides with tiny/1 now" in models("rollback", str(family))
    assert (family / "active").read_text() == "1\n"
    wait_for(lambda: [change.model for change in changes] == ["tiny/1", "tiny/2", "tiny/1"], "all are announced")


def test_shadow_model_sees_the_same_pictures_and_can_be_ended(bench, family):
    peer = bench.set_up(*with_model(family), f"shadow_model={family / '2'}")
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    shadows = peer.listen(BatteryType, "shadow_type", "SHADOW")
    changes = peer.listen(ModelChange, "model_change", "NOTICE")
    bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
    peer.publish("battery_image", BatteryImage(header=bench.now(), battery_id="dropped", error="no_image"))
    peer.publish("battery_image", image("a", bench.now(), GREEN))
    wait_for(lambda: shadows, "the shadow's verdict")
    assert (shadows[0].battery_id, shadows[0].model, shadows[0].label) == ("a", "tiny/2", "Green")
    assert [(verdict.battery_id, verdict.model) for verdict in types] == [
        ("dropped", "tiny/1"),
        ("a", "tiny/1"),
    ]
    assert [(change.model, change.shadow) for change in changes] == [
        ("tiny/1", False),
        ("tiny/2", True),
    ]
    ended = peer.call(LoadModel, "classifier/load_model", shadow=True)
    assert (ended.success, ended.model) == (True, "")
    peer.publish("battery_image", image("b", bench.now(), GREEN))
    wait_for(lambda: len(types) == 3, "a verdict on b")
    again = peer.call(LoadModel, "classifier/load_model", model=str(family / "2"), shadow=True)
    assert (again.success, again.model) == (True, "tiny/2")
    peer.publish("battery_image", image("c", bench.now(), GREEN))
    wait_for(lambda: len(shadows) == 2, "the shadow's verdict on c")
    assert shadows[1].battery_id == "c"
    assert [(change.model, change.previous) for change in changes[2:]] == [
        ("", "tiny/2"),
        ("tiny/2", ""),
    ]


def test_drift_is_a_warning_in_the_diagnostics_and_the_node_goes_on(bench, family):
    peer = bench.set_up(*with_model(family), "drift.window=10", "drift.min_number=5")
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    alarms = peer.listen(Alarm, "alarm", "NOTICE")
    diagnostics = peer.listen(DiagnosticArray, "/diagnostics")

    def status():
        mine = [one.status[0] for one in diagnostics if one.status[0].hardware_id == "classifier"]
        return mine[-1] if mine else None

    bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")

    def send(number: int, pixels: np.ndarray) -> None:
        goal = len(types) + number
        for index in range(number):
            peer.publish("battery_image", image(f"{goal}-{index}", bench.heartbeats[-1].header, pixels))
        wait_for(lambda: len(types) == goal, "a verdict on each")

    send(6, np.zeros_like(GREEN))
    wait_for(lambda: alarms, "an alarm")
    assert (alarms[0].code, alarms[0].raised) == ("drift_others", True)
    wait_for(lambda: status() is not None and "share of rejected batteries" in status().message, "a warning")
    assert "is 1.00" in status().message and status().level == DiagnosticStatus.WARN
    assert bench.now() and bench.heartbeats[-1].ok
    send(10, GREEN)
    wait_for(lambda: len(alarms) == 2, "the alarm is over")
    assert (alarms[1].code, alarms[1].raised) == ("drift_others", False)
    wait_for(lambda: status().level == DiagnosticStatus.OK, "all is well")
    assert {value.key for value in status().values} >= {"model", "others_share", "inference_ms"}


def test_belt_that_has_changed_is_noticed_after_a_new_start_too(bench, family):
    limits = ("drift.window=10", "drift.min_number=5", "drift.novelty=null")
    peer = bench.set_up(*with_model(family), *limits)
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    alarms = peer.listen(Alarm, "alarm", "NOTICE")
    node = bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")

    def send(number: int, pixels: np.ndarray) -> None:
        goal = len(types) + number
        for index in range(number):
            peer.publish("battery_image", image(f"{goal}-{index}", bench.heartbeats[-1].header, pixels))
        wait_for(lambda: len(types) >= goal, "a verdict on each")

    send(10, GREEN)
    wait_for((bench.plan.run_dir / "drift_reference.json").exists, "the reference is written down")
    node.signal(signal.SIGINT)
    node.wait()
    wait_for(lambda: not peer.listeners("battery_image"), "the node is known to be gone")
    bench.bring_up("classifier")
    send(12, battery((200, 30, 30)))
    wait_for(lambda: alarms, "an alarm")
    assert (alarms[-1].code, alarms[-1].raised) == ("drift_mix", True)
    assert "Green from 100%" in alarms[-1].text


def transition(peer, name: str) -> None:
    number = {"configure": Transition.TRANSITION_CONFIGURE, "activate": Transition.TRANSITION_ACTIVATE}[name]
    answer = peer.call(ChangeState, "classifier/change_state", transition=Transition(id=number))
    assert answer.success


def test_one_process_looks_at_the_pictures_of_two_lines(bench, family, tmp_path):
    def plan_of_right(version: str):
        overrides = (*with_model(family / version), "line=right", "own_classifier=false")
        return BeltJob(500, run_dir=tmp_path / "right", overrides=overrides).make_plan()

    left = bench.set_up(*with_model(family), f"serves=[{tmp_path / 'right'}]")
    left_types = left.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    node = bench.bring_up("classifier")
    left.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")

    plan = plan_of_right("2")
    plan.write_run_files()  # the other line starts, when this one is at work already
    right = bench.join(plan)
    beats = right.listen(Heartbeat, "heartbeat")
    right_types = right.listen(BatteryType, "battery_type", "BATTERY_EVENT")

    def wait_for_right(state: Lifecycle) -> None:
        begin = len(beats)
        wait_for(lambda: any(beat.lifecycle_state == state for beat in beats[begin:]), f"the guest is {state.name}")

    def bring_up_right() -> None:
        wait_for_right(Lifecycle.UNCONFIGURED)
        for name in ("configure", "activate"):
            transition(right, name)
        wait_for_right(Lifecycle.ACTIVE)

    bring_up_right()
    right.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
    for number in range(6):
        left.publish("battery_image", image(f"left-{number}", bench.heartbeats[-1].header, GREEN))
        right.publish("battery_image", image(f"right-{number}", beats[-1].header, battery((200, 30, 30))))
    wait_for(lambda: len(left_types) == len(right_types) == 6, "a verdict on each, where it belongs")
    assert [(one.battery_id, one.label, one.model) for one in left_types] == [
        (f"left-{number}", "Green", "tiny/1") for number in range(6)
    ]
    assert [(one.battery_id, one.label, one.model) for one in right_types] == [
        (f"right-{number}", "Red", "tiny/2") for number in range(6)
    ]
    assert node.exit_code is None

    plan_of_right("1").write_run_files()  # the other line starts again, with another model
    bring_up_right()
    right.publish("battery_image", image("again", beats[-1].header, GREEN))
    left.publish("battery_image", image("still", bench.heartbeats[-1].header, GREEN))
    wait_for(
        lambda: right_types[-1].battery_id == "again" and left_types[-1].battery_id == "still", "both verdicts"
    )
    assert (right_types[-1].model, left_types[-1].model) == ("tiny/1", "tiny/1")


def test_line_with_a_classifier_of_its_own_is_not_served_twice(bench, family, tmp_path):
    plan = BeltJob(500, run_dir=tmp_path / "right", overrides=(*with_model(family), "line=right")).make_plan()
    plan.write_run_files()
    bench.set_up(*with_model(family), f"serves=[{tmp_path / 'right'}]")
    node = bench.bring_up("classifier")
    wait_for(lambda: "own_classifier: false" in node.output, "it says why")
    assert bench.now()
