"""`battery-sorting models`: versions of models, which one is active, and how two compare."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.shadow import ShadowComparison, compare_shadows
from battery_sorting.belt.site import BeltSite
from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli._output import say, show, write_json
from battery_sorting.cli._progress import progress
from battery_sorting.core.active_model import (
    STORE,
    activate,
    active_version,
    find_model,
    previous_version,
    roll_back,
    undone_on_failure,
)
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.settings import find_shared
from battery_sorting.runtime.ask import ask

if TYPE_CHECKING:
    from battery_sorting.vision.model_store import StoredModel

LOAD_S = 150.0
"""So long a busy classifier may take to try and load a model."""
DEFAULT_RECIPE = "batsort"

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LineOption = Annotated[str, typer.Option("--line", help="Line whose classifier swaps its model, if the cell runs.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Don't look for a cell that runs.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Recipe that the model must fit to where no cell runs; else the site's, else batsort."
    ),
]
SiteOption = Annotated[
    str | None, typer.Option("--site", help="Site whose recipe the model must fit to where no cell runs.")
]

app = typer.Typer(help="Versions of models: list, compare, activate, roll back, watch.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What the classifier of a cell that runs has said; ``found`` is False where no cell runs."""

    found: bool
    model: str = ""
    message: str = ""


@app.command("list")
def list_models(
    store: Annotated[Path | None, typer.Argument(help="Folder of the models; models/ by default.")] = None,
    json: JsonOption = False,
) -> None:
    """List all models, mark the active ones and those that can't be used."""
    from battery_sorting.vision.model_store import card_figures, stored_models

    folder = store or find_shared(STORE)
    if folder is None or not folder.is_dir():
        raise ConfigurationError(str(folder or STORE), ["there is no such folder of models"])
    models = stored_models(folder)
    if json:
        rows = [
            {
                "model": model.name,
                "folder": str(model.folder),
                "active": model.active,
                "problem": model.problem,
                "types": model.card.types if model.card else [],
                "figures": card_figures(model.card) if model.card else {},
            }
            for model in models
        ]
        write_json(rows)
    elif models:
        _print_models(folder, models)
    if not models:
        raise NothingFoundError(f"{folder}: has no model; 'battery-sorting train' writes some")


def _print_models(folder: Path, models: list[StoredModel]) -> None:
    table = Table("model", "state", "types", "trained", title=f"Models in {folder}")
    for model in models:
        types = str(len(model.card.types)) if model.card else "-"
        trained = str(model.card.data.get("trained", "-")) if model.card else "-"
        table.add_row(model.name, "active" if model.active else "", types, trained)
    show(table)
    for problem in dict.fromkeys(model.problem for model in models if model.problem):
        say(problem)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="NAME/VERSION, or a folder.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    data: Annotated[
        Path | None, typer.Option(help="Run both on these pictures: a folder per type, Other for the rest.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare two models: the figures of their cards, and with --data their verdicts on the same pictures."""
    from battery_sorting.vision.card import read_card
    from battery_sorting.vision.model_store import card_figures, compare_on_pictures, trained_on

    folders = [find_model(name) for name in (first, second)]
    cards = [read_card(folder) for folder in folders]
    figures = [card_figures(card) for card in cards]
    names = [f"{card.name}/{card.version}" for card in cards]
    result: dict[str, Any] = {
        "models": names,
        "folders": [str(folder) for folder in folders],
        "only_in_first": [label for label in cards[0].types if label not in cards[1].types],
        "only_in_second": [label for label in cards[1].types if label not in cards[0].types],
        "figures": {key: [one.get(key) for one in figures] for key in {**figures[0], **figures[1]}},
    }
    if data is not None:
        from battery_sorting.vision.classifier import TypeClassifier
        from battery_sorting.vision.deep_pictures import camera_bits

        pictures = _labelled_pictures(data)
        one, other = (TypeClassifier(folder) for folder in folders)
        result["on_pictures"] = compare_on_pictures(
            one, other, progress("looking", pictures), camera_bits([path for path, _ in pictures])
        )
        result["on_pictures"]["trained_on"] = [trained_on(folder, pictures) for folder in folders]
    if json:
        write_json(result)
        return
    show(_figures_table(names, result["figures"]))
    for key, name in (("only_in_first", names[0]), ("only_in_second", names[1])):
        if result[key]:
            say(f"only {name} knows {', '.join(result[key])}")
    if data is not None:
        _print_on_pictures(names, result["on_pictures"])


@app.command("activate")
def activate_model(
    model: Annotated[str, typer.Argument(help="NAME/VERSION, or the folder of a version.")],
    site: SiteOption = None,
    recipe: RecipeOption = None,
    line: LineOption = "belt",
    offline: OfflineOption = False,
) -> None:
    """Make a version the active one, in a cell that runs at once and without a stop."""
    folder = find_model(model)
    if folder.name != Path(model).name:
        raise ModelError(f"{model}: is a family of versions: say which, for example {model}/{folder.name}")
    with undone_on_failure(folder.parent):
        activate(folder.parent, folder.name, time.time())
        answer = _take_over(folder, site, recipe, None if offline else line)
    _say(folder, answer, line)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Name of the model, or folder of its versions.")] = "battery_type",
    site: SiteOption = None,
    recipe: RecipeOption = None,
    line: LineOption = "belt",
    offline: OfflineOption = False,
) -> None:
    """Go back to the version that was active before, in a cell that runs at once and without a stop."""
    family = find_shared(name) or find_shared(f"{STORE}/{name}")
    if family is None:
        raise ModelError(f"there is no model '{name}' under {STORE}/")
    folder = family / previous_version(family)
    with undone_on_failure(family):
        roll_back(family)
        answer = _take_over(folder, site, recipe, None if offline else line)
    _say(folder, answer, line)


@app.command()
def candidate(
    model: Annotated[str | None, typer.Argument(help="NAME/VERSION, or a folder.")] = None,
    end: Annotated[bool, typer.Option("--end", help="End the shadow.")] = False,
    line: LineOption = "belt",
) -> None:
    """Let a candidate look at the same pictures beside the active model of a cell that runs, or end that.

    Its verdicts are recorded and never acted on; 'models shadow' compares them.
    """
    if (model is None) != end:
        raise ConfigurationError("models candidate", ["give a model, or --end to end the shadow"])
    answer = _ask_classifier(line, "" if model is None else str(find_model(model)), shadow=True)
    if not answer.found:
        raise ModelError(f"no classifier of line '{line}' answers: start the cell first, or set ROS_DOMAIN_ID")
    say(f"line {line} is shadowed by {answer.model or 'no model'}")


@app.command()
def shadow(
    ledger: Annotated[str, typer.Argument(help="Ledger: path of the file, or postgresql://…")],
    shift: Annotated[int | None, typer.Option(help="Number of the shift; the last one by default.")] = None,
    plant: Annotated[Path | None, typer.Option(help="The plant's record (JSONL): who was right.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare what a shadow model would have done with what was done."""
    from battery_sorting.cli._ledger import end_if_incomplete
    from battery_sorting.core.plant_control import load_record
    from battery_sorting.ledger.store import Ledger

    record = None if plant is None else load_record(plant)
    with Ledger.open(ledger, read_only=True) as book:
        comparisons = compare_shadows(book, shift, record)
    if json:
        write_json([one.to_dict() for one in comparisons])
    else:
        for one in comparisons:
            _print_shadow(one)
    end_if_incomplete(book.name, book.unreadable)
    if not comparisons:
        raise NothingFoundError(
            f"{book.name}: no shadow model has looked at a battery in this shift: name one as shadow_model in the "
            "site file"
        )


def _take_over(folder: Path, site: str | None, recipe: str | None, line: str | None) -> LiveAnswer:
    """Loads the model in the cell that runs, or tries it here where none does.

    Never both: loading takes a core for a second, and the belt needs it.

    Raises:
        ModelError: The model can't be loaded, or its types don't fit to the recipe of the cell or the one named.
    """
    from battery_sorting.vision.model_store import checked_card

    checked_card(folder)
    answer = LiveAnswer(False) if line is None else _ask_classifier(line, str(folder), shadow=False)
    if not answer.found:
        from battery_sorting.vision.live import load_warm
        from battery_sorting.vision.trial import try_model

        try_model(folder)
        load_warm(folder, BeltRecipe.load(recipe or (BeltSite.load(site).recipe if site else DEFAULT_RECIPE)))
    return answer


def _ask_classifier(line: str, model: str, shadow: bool) -> LiveAnswer:
    """Loads a model in a cell that runs. Raises `ModelError` if its classifier refuses."""
    if importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("battery_sorting.srv") is None:
        return LiveAnswer(False)
    request = {"model": model, "shadow": shadow}
    answer = ask(line, "classifier/load_model", "LoadModel", request, LOAD_S)
    if answer is None:
        return LiveAnswer(False)
    if not answer["success"]:
        raise ModelError(f"line {line} goes on with {answer['model'] or 'no model'}: {answer['message']}")
    return LiveAnswer(True, answer["model"], answer["message"])


def _say(folder: Path, answer: LiveAnswer, line: str) -> None:
    family = folder.parent
    say(f"{family.name}/{active_version(family)} is active in {family}")
    if not answer.found:
        say(
            f"no cell runs here as line '{line}': sites whose model is {STORE}/{family.name} take it at their start"
        )
        return
    say(f"line {line} decides with {answer.model} now" + (f", {answer.message}" if answer.message else ""))


def _labelled_pictures(data: Path) -> list[tuple[Path, str]]:
    """Files below the folders of ``data`` with their type, *others* for folders like Other."""
    from battery_sorting.cli._pictures import warn
    from battery_sorting.vision.picture_folders import find_pictures
    from battery_sorting.vision.pictures import label_of_folder

    tree = find_pictures(data)
    pictures = [(file, label_of_folder(name)) for name, files in tree.types.items() for file in files]
    if not pictures:
        remarks = [str(remark) for remark in tree.remarks]
        raise ConfigurationError(
            str(data), ["no pictures; give a folder with a sub-folder of pictures per type", *remarks]
        )
    tree.told(warn)
    return pictures


def _figures_table(names: list[str], figures: dict[str, list[Any]]) -> Table:
    table = Table("figure", *names, title="Figures on the cards")
    for column in table.columns[1:]:
        column.justify = "right"
    for key, values in figures.items():
        table.add_row(key, *(_figure(value) for value in values))
    return table


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return f"{value:g}"
    if value["value"] is None:
        return "-"
    if value.get("low") is None:
        return f"{value['value']:.1%}"
    return f"{value['value']:.1%} ({value['low']:.1%}–{value['high']:.1%})"


def _print_on_pictures(names: list[str], result: dict[str, Any]) -> None:
    table = Table(
        "on the pictures", *names, "only one right", "McNemar's p", title=f"{result['pictures']} pictures"
    )
    for key, text in (("accuracy", "most probable type is right"), ("right_outcome", "would go where it belongs")):
        row = result[key]
        only = f"{row['only_first_right']} : {row['only_second_right']}"
        table.add_row(text, _figure(row["first"]), _figure(row["second"]), only, f"{row['mcnemar_p']:.3g}")
    show(table)
    say(
        f"same type: {_percent(result['same_type'])}, same outcome: {_percent(result['same_outcome'])}, "
        f"unreadable: {len(result['unreadable'])}"
    )
    for name, count in zip(names, result["trained_on"], strict=True):
        if count:
            say(f"{name} was trained on {count} of these pictures: on them it shows what it remembers")
    for one in result["differences"]:
        say(f"  {one['path']}: {' / '.join(one['outcomes'])}")


def _print_shadow(one: ShadowComparison) -> None:
    table = Table("", "share", title=f"{one.candidate} in the shadow of {one.active}: {one.batteries} batteries")
    table.columns[1].justify = "right"
    rows = [
        ("same outcome", one.same_outcome),
        ("same most probable type", one.same_type),
        *((f"accepted by {who}", share) for who, share in one.accepted_by.items()),
        ("mean confidence, active", one.confidence["active"]),
        ("mean confidence, candidate", one.confidence["candidate"]),
    ]
    if one.judged is not None:
        rows += [
            ("right outcome, active", one.judged.active_right["value"]),
            ("right outcome, candidate", one.judged.candidate_right["value"]),
        ]
    for text, share in rows:
        table.add_row(text, _percent(share))
    show(table)
    say(f"not seen by the candidate: {one.not_seen}")
    if one.judged is not None:
        judged = one.judged
        say(
            f"only one right: {judged.only_active_right} : {judged.only_candidate_right} (McNemar's p "
            f"{judged.mcnemar_p:.3g}); into a wrong bin: {judged.active_into_wrong_bin} : "
            f"{judged.candidate_into_wrong_bin}"
        )
    for mine, others in one.disagreements.items():
        said = ", ".join(f"{its} {count}" for its, count in others.items())
        say(f"  {mine} → {said}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
