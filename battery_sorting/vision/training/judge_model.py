"""A finished model, judged on a folder of pictures by the same path that runs in the station."""

from __future__ import annotations

from collections import Counter

import numpy as np

from battery_sorting.core.errors import FrameError
from battery_sorting.vision.inspector import DefectInspector
from battery_sorting.vision.pictures import read_picture
from battery_sorting.vision.training.defect_data import DefectPictures
from battery_sorting.vision.training.defect_model import HeldOutVerdicts
from battery_sorting.vision.training.progress import Progress, no_progress


def judge_model(
    inspector: DefectInspector, pictures: DefectPictures, progress: Progress = no_progress
) -> tuple[HeldOutVerdicts, dict[str, int]]:
    """Inspect every picture.

    A picture that can not be judged counts as said to be defective: nothing unjudged passes. How many there were of
    each reason stands in the second result, with the verdicts ``unsure``.
    """
    probability = np.full(len(pictures.files), np.nan)
    novelty = np.full(len(pictures.files), np.nan)
    kinds = np.full(len(pictures.files), -1)
    refused: Counter[str] = Counter()
    for row, file in enumerate(progress("pictures", pictures.files)):
        try:
            said = inspector.inspect(np.ascontiguousarray(read_picture(file, pictures.bits)[..., ::-1]))
        except FrameError:
            refused["unreadable"] += 1
            continue
        if said.verdict in ("bad_image", "unsure"):
            refused[f"{said.verdict}: {said.reason}"] += 1
        if said.kinds:
            probability[row], novelty[row] = said.probability, said.novelty
            best = max(said.kinds, key=said.kinds.__getitem__)
            kinds[row] = pictures.labels.index(best) if best in pictures.labels else -1
    judged = HeldOutVerdicts(
        probability=np.nan_to_num(probability, nan=1.0),
        defective=pictures.defective,
        kinds=kinds,
        targets=pictures.targets,
        novelty=novelty,
        split=np.zeros(len(kinds), int),
        names=np.array(pictures.names),
        severity=pictures.severity,
        scores=np.zeros((len(kinds), 0)),
        labels=pictures.labels,
    )
    return judged, dict(refused)
