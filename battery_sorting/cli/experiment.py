"""`battery-sorting experiment`: the papers' tables again, on your pictures. Needs requirements/train.txt.

Each experiment has a module: `experiment_batsort`, `experiment_inspection`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from battery_sorting.cli._defect_options import (
    CacheOption,
    FinderOption,
    GapOption,
    GoodOption,
    GroupsOption,
    JsonOption,
    LearnerOption,
    OverwriteOption,
    ViewOption,
)
from battery_sorting.cli._destinations import check_folder, check_source
from battery_sorting.cli._experiment_batsort import (
    BatsortSettings,
    BothStagesOption,
    CopiesOption,
    FitOption,
    LabelsOption,
    ResumeOption,
    ScratchSizeOption,
    SizeOption,
    run_batsort,
)
from battery_sorting.cli._experiment_inspection import (
    INSPECTION_TABLE,
    FromScratchOption,
    InspectionSettings,
    NetworksOption,
    WholeEpochsOption,
    run_inspection_table,
)
from battery_sorting.cli._experiment_options import (
    BackboneOption,
    DataOption,
    DeviceOption,
    ExperimentCall,
    OutOption,
    RunsOption,
    SeedOption,
    ThreadsOption,
    WeightsOption,
)


def experiment(
    name: Annotated[
        str, typer.Argument(help="batsort-table1, batsort-table2, batsort-figure3 or inspection-table3.")
    ],
    data: DataOption,
    out: OutOption,
    runs: RunsOption = 10,
    backbone: BackboneOption = "lite0",
    weights: WeightsOption = None,
    size: SizeOption = 224,
    scratch_size: ScratchSizeOption = 96,
    fit: FitOption = "squash",
    labels: LabelsOption = None,
    both_stages: BothStagesOption = False,
    copies: CopiesOption = 0,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    resume: ResumeOption = False,
    view: ViewOption = "",
    good: GoodOption = "",
    groups: GroupsOption = "",
    group_gap: GapOption = 0,
    finder: FinderOption = None,
    networks: NetworksOption = "",
    epochs: WholeEpochsOption = 100,
    from_scratch: FromScratchOption = False,
    head: LearnerOption = "",
    cache: CacheOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Run an experiment of the papers and set its figures beside theirs.

    The options from --view to --overwrite are for inspection-table3, where --backbone may be a list with commas.
    """
    check_folder("--out", out)
    check_folder("--cache", cache)
    check_source("--data", data)
    call = ExperimentCall(
        data=data,
        out=out,
        runs=runs,
        backbone=backbone,
        weights=weights,
        seed=seed,
        device=device,
        threads=threads,
        json=json,
    )
    if name == INSPECTION_TABLE:
        inspection = InspectionSettings(
            view=view,
            good=good,
            groups=groups,
            group_gap=group_gap,
            finder=finder,
            networks=networks,
            epochs=epochs,
            from_scratch=from_scratch,
            head=head,
            cache=cache,
            overwrite=overwrite,
        )
        run_inspection_table(call, inspection)
    else:
        batsort = BatsortSettings(
            size=size,
            scratch_size=scratch_size,
            fit=fit,
            labels=labels,
            both_stages=both_stages,
            copies=copies,
            resume=resume,
        )
        run_batsort(name, call, batsort)
