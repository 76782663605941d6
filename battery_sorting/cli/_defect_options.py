"""Options that the commands of the appearance inspection share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from battery_sorting.core.errors import ConfigurationError

if TYPE_CHECKING:
    from battery_sorting.vision.training.defect_model import DefectOptions

DataOption = Annotated[Path, typer.Option(help="Folder with a folder of pictures per class.")]
ViewOption = Annotated[
    str, typer.Option(help="lug or case: the cell is cut out of the station's frames; empty: pictures of anything.")
]
GoodOption = Annotated[
    str, typer.Option(help="Classes that are no defect, separated by commas; empty: good, free, ok or normal.")
]
GroupsOption = Annotated[
    str,
    typer.Option(help="What shows the same part: a CSV file (file,group), or a regular expression for file names."),
]
GapOption = Annotated[
    int, typer.Option(min=0, help="Groups that are numbers: those at most so far apart are one part.")
]
BackboneOption = Annotated[str, typer.Option(help="lite0, lite1, lite2, resnet50v2, …, or a name of timm.")]
WeightsOption = Annotated[Path | None, typer.Option(help="File with the backbone's weights.")]
SizeOption = Annotated[str, typer.Option(help="WIDTHxHEIGHT that the network sees, pixels; empty: the view's.")]
FinderOption = Annotated[
    Path | None, typer.Option(help="finder.onnx for lug and case; default: that of the shipped model.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Folder that keeps features, so that a second run is quick.")
]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Processor threads.")]
SeedOption = Annotated[int, typer.Option(min=0, max=10_000)]
EscapeOption = Annotated[
    float, typer.Option(min=0.0001, max=0.5, help="Share of defectives that may pass as good, 0..1.")
]
LearnerOption = Annotated[
    str,
    typer.Option(
        "--head",
        help="maps: learns where in the picture a defect shows; kernel: what the picture is made of; empty: "
        "maps for lug and case, else kernel.",
    ),
]
EpochsOption = Annotated[int, typer.Option(min=1, help="Passes over the pictures.")]
MembersOption = Annotated[int, typer.Option(min=1, max=9, help="Heads that are trained and averaged.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there, when the new one is whole; else it is refused.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_size(text: str) -> tuple[int, int] | None:
    """``640x128`` as numbers; None for an empty text.

    Raises:
        ConfigurationError: It isn't a size.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+)[x×](\d+)", text.strip().lower())
    if found is None:
        raise ConfigurationError("--size", [f"{text!r} is no size; write it as 640x128"])
    return int(found[1]), int(found[2])


def names_of(text: str) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectArguments:
    """What the command line says of a training: the options by their names, for `with_defect_options`."""

    view: ViewOption = ""
    good: GoodOption = ""
    groups: GroupsOption = ""
    group_gap: GapOption = 0
    backbone: BackboneOption = "lite0"
    weights: WeightsOption = None
    size: SizeOption = ""
    finder: FinderOption = None
    head: LearnerOption = ""
    epochs: EpochsOption = 30
    members: MembersOption = 1
    max_escape: EscapeOption = 0.005
    seed: SeedOption = 0
    device: DeviceOption = "auto"
    threads: ThreadsOption = 1
    cache: CacheOption = None

    def options(self, data: Path) -> DefectOptions:
        """The same for training on the pictures in ``data``. Imports PyTorch, and gives it its threads."""
        import torch

        from battery_sorting.vision.training.backbone import backbone_name
        from battery_sorting.vision.training.defect_data import Grouping
        from battery_sorting.vision.training.defect_head import DefectHeadOptions
        from battery_sorting.vision.training.defect_model import DefectOptions

        torch.set_num_threads(self.threads)
        return DefectOptions(
            data=data,
            view=self.view,
            good=names_of(self.good),
            grouping=Grouping(self.groups, self.group_gap),
            backbone=backbone_name(self.backbone),
            weights=self.weights,
            size=read_size(self.size),
            finder=self.finder,
            learner=self.head,
            head=DefectHeadOptions(epochs=self.epochs, members=self.members, seed=self.seed),
            max_escape=self.max_escape,
            seed=self.seed,
            device=self.device,
            threads=self.threads,
            cache=self.cache,
        )


def with_defect_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter ``training`` becomes the options that are the fields of `DefectArguments`."""
    shared = get_type_hints(DefectArguments, include_extras=True)
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name == "training":
            parameters += [
                Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=shared[one.name])
                for one in fields(DefectArguments)
            ]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    def call(**given: Any) -> None:
        training = {name: given.pop(name) for name in shared if name in given}
        command(**given, training=DefectArguments(**training))

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what typer makes the options of
    return call
