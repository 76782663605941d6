"""The classifier: pictures that can't be used are rejected, models that can't be used are refused."""

from __future__ import annotations

import array
import json
import shutil

import numpy as np
import pytest
from battery_sorting.msg import BatteryImage, BatteryType
from harness import ROOT, wait_for
from sensor_msgs.msg import Image

from battery_sorting.plant.renderer import make_renderer
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
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    bench.set_up(f"model={model}")
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
    shutil.copy(MODEL / "card.json", model / "card.json")
    assert bench.change("classifier", "configure")
    bench.wait_for_heartbeat(lambda beat: beat.ok and beat.lifecycle_state == 2, "node is configured")
