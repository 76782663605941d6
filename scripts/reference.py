"""Writes the pages of docs/reference that follow from the code: messages, sites, recipes, commands and drivers.

``make reference`` runs it, and it also writes the contract's page and policies (`runtime/contract_page.py`).
Nothing is listed here: lines, interfaces, commands and drivers are found where they are defined, so that what is
new appears by itself. A test fails as long as a page is not what would be written.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from battery_sorting.cli.main import make_app
from battery_sorting.core.settings import UNITS
from battery_sorting.drivers.registry import DEVICES, base_class, find_device, find_driver
from battery_sorting.line.contract import Contract
from battery_sorting.lines import LINES
from battery_sorting.runtime import contract_page

FOLDER = Path("docs/reference")
PROGRAM = "battery-sorting"
HEAD = "<!-- Written by `make reference`: change the code that it follows from, not this file. -->\n"
MORE_UNITS = {
    "a": "amperes",
    "c": "°C",
    "mohm": "milliohms",
    "us": "microseconds",
    "v": "volts",
}


class UndocumentedError(Exception):
    """Something that the reference must explain has no description."""


def files(root: Path) -> dict[Path, str]:
    """Every generated file of the source tree ``root``, relative to it, and what must stand in it.

    Raises:
        UndocumentedError: A setting has no description.
    """
    pages = {
        "messages": messages(root),
        "sites": settings_page("sites"),
        "recipes": settings_page("recipes"),
        "commands": commands(),
        "drivers": drivers(root),
    }
    written = {FOLDER / f"{name}.md": HEAD + "\n\n".join(blocks) + "\n" for name, blocks in pages.items()}
    return written | contract_page.files(root)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; what would end a cell is escaped."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def first_paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, in Markdown."""
    paragraph = " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
    return paragraph.replace("``", "`")


# ---- messages ----


@dataclass
class Part:
    """A part of an interface: the message, or request, response, goal, result or feedback."""

    fields: list[tuple[str, str, str]] = field(default_factory=list)
    constants: list[tuple[str, str, str]] = field(default_factory=list)


PARTS = {"msg": ("",), "srv": ("Request", "Response"), "action": ("Goal", "Result", "Feedback")}
TITLES = {"msg": "Messages", "srv": "Services", "action": "Actions"}


def messages(root: Path) -> Iterator[str]:
    """The page of all interface files."""
    yield "# Messages, services and actions"
    yield (
        "Every interface of `battery_sorting`, with its fields as the files in `msg/`, `srv/` and `action/` "
        "describe them. [contract.md](contract.md) gives the quality of service of each topic, and what the nodes "
        "do with it. Units are given in the comments, SI where there is none; NaN means *not measured*."
    )
    for kind, title in TITLES.items():
        yield f"## {title}"
        for path in sorted((root / kind).glob(f"*.{kind}")):
            yield from _interface(path, kind)


def _interface(path: Path, kind: str) -> Iterator[str]:
    about, parts = parse_interface(path.read_text(encoding="utf-8"), kind)
    yield f"### {path.stem}\n{_plain(about)}"
    if uses := "\n".join(_uses(f"battery_sorting/{kind}/{path.stem}")):
        yield uses
    for name, part in parts.items():
        if name:
            yield f"**{name}**" + ("" if part.fields else ": no fields")
        if part.fields:
            rows = ((f"`{field_name}`", f"`{type_}`", _plain(text)) for type_, field_name, text in part.fields)
            yield table(("field", "type", "meaning"), rows)
        if part.constants:
            yield table(
                ("constant", "value", "meaning"), ((f"`{n}`", v, _plain(text)) for n, v, text in part.constants)
            )


def parse_interface(text: str, kind: str) -> tuple[str, dict[str, Part]]:
    """What an interface file is about, and its parts by name.

    Args:
        text: Content of the file.
        kind: ``msg``, ``srv`` or ``action``.
    """
    chunks = re.split(r"^---[ \t]*$", text, flags=re.MULTILINE)
    comment = re.match(r"(?:#.*\n)*", text)
    about = " ".join(line.lstrip("# ") for line in (comment.group() if comment else "").splitlines())
    return about, {name: _part(chunk) for name, chunk in zip(PARTS[kind], chunks, strict=True)}


def _part(text: str) -> Part:
    part = Part()
    for line in text.splitlines():
        code, _, comment = (piece.strip() for piece in line.partition("#"))
        if not code:
            continue
        type_, _, rest = code.partition(" ")
        name, equals, value = (piece.strip() for piece in rest.partition("="))
        if equals:
            part.constants.append((name, value, comment))
        else:
            part.fields.append((type_, name, comment))
    return part


def _uses(type_: str) -> Iterator[str]:
    """Who publishes, subscribes to, serves and calls an interface, by the contracts of all lines."""
    for name, kind in LINES.items():
        contract: Contract = kind.contract
        for topic in contract.topics:
            if topic.type == type_:
                hears = ", ".join(topic.subscribers) or "people"
                yield f"- {name} line: topic `{topic.name}`, from {', '.join(topic.publishers)} to {hears}"
        for service in contract.services:
            if service.type == type_:
                what = "action" if service.is_action else "service"
                callers = ", ".join(service.callers) or "people"
                yield f"- {name} line: {what} `{service.path}`, served by {service.node}, called by {callers}"


# ---- settings ----

SITES = (
    "# Sites",
    "A site file (`config/sites/NAME.yaml`) says which hardware a line has, where it stands and how to reach it. "
    "[site_guide.md](../how-to/site_guide.md) explains how to write one; `battery-sorting check --site NAME` "
    "reports every mistake in it. Paths of keys are written as in its messages and in `--set`; `[n]` is an item of "
    "a list, counted from 0. The settings of a driver are in [drivers.md](drivers.md), those of the simulated "
    "plant (`plant:`) in [plant.md](plant.md).",
)
RECIPES = (
    "# Recipes",
    "A recipe (`config/recipes/NAME.yaml`) says what happens to which battery. "
    "[site_guide.md](../how-to/site_guide.md#the-recipe) explains it for the belt line, "
    "[ev_line.md](ev_line.md#site-and-recipe) for the EV line. A single key is changed for one run by "
    "`--set recipe.KEY=VALUE`. `steps[n, charge]` is an item of the list `steps` whose `kind` is `charge`.",
)


def settings_page(which: str) -> Iterator[str]:
    """The page of the ``sites`` or the ``recipes`` of every kind of line."""
    yield from SITES if which == "sites" else RECIPES
    for name, kind in LINES.items():
        yield f"## {'EV' if name == 'ev' else name.capitalize()} line"
        yield settings_table(kind.site if which == "sites" else kind.recipe)


def settings_table(model: type[Any]) -> str:
    """Every key of a settings class, with those of its parts.

    Raises:
        UndocumentedError: A key has no description.
    """
    schema = model.model_json_schema()
    rows = _keys(schema, schema.get("$defs", {}), "", {})
    return table(("key", "type", "default", "unit", "meaning"), rows)


def _keys(
    owner: dict[str, Any], parts: dict[str, Any], prefix: str, given: dict[str, Any]
) -> Iterator[tuple[str, ...]]:
    """Rows of the keys of a settings class; ``given`` are values that the section itself has by default."""
    needed = set(owner.get("required", ())) - set(given)
    for name, key in owner.get("properties", {}).items():
        about = key.get("description") or ("const" in key and first_paragraph(owner.get("description")))
        if not about:
            raise UndocumentedError(f"{owner['title']}.{name} has no description: give its Field a description=")
        default = given.get(name, key.get("default", ""))
        inner = dict(_parts(key, parts))
        # Of a section that is there by default, the keys below it have the values.
        shown = "" if inner and isinstance(default, dict) else _value(default)
        row = _type(key, parts), "required" if name in needed else shown, _unit(name), about.replace("``", "`")
        yield f"`{prefix}{name}`", *row
        for mark, part in inner.items():
            below = default if isinstance(default, dict) and not mark else {}
            yield from _keys(part, parts, f"{prefix}{name}{mark}.", below)


def _parts(key: dict[str, Any], parts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings below a key, by what stands between them and its name."""
    if "$ref" in key:
        yield "", parts[key["$ref"].rpartition("/")[2]]
    for option in key.get("anyOf", ()):
        yield from _parts(option, parts)
    items = key.get("items", {})
    if "$ref" in items:
        yield "[n]", parts[items["$ref"].rpartition("/")[2]]
    for choice, target in items.get("discriminator", {}).get("mapping", {}).items():
        yield f"[n, {choice}]", parts[target.rpartition("/")[2]]


def _type(key: dict[str, Any], parts: dict[str, Any]) -> str:
    if "const" in key:
        return f"`{key['const']}`"
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"])
    if "anyOf" in key:
        return " or ".join(_type(option, parts) for option in key["anyOf"])
    if "prefixItems" in key:
        return f"list of {len(key['prefixItems'])}: {_type(key['prefixItems'][0], parts)}"
    if key.get("type") == "array":
        return f"list of {_type(key.get('items', {}), parts)}{_limits(key, 'minItems', 'maxItems', 'items ')}"
    if "$ref" in key or "discriminator" in key or "properties" in key:
        return "section"
    names = {"string": "text", "number": "number", "integer": "whole number", "boolean": "`true`, `false`"}
    names |= {"object": "mapping", "null": "none"}
    name = "date" if key.get("format") == "date" else names.get(key.get("type", ""), "any")
    return name + _limits(key, "minimum", "maximum")


def _limits(key: dict[str, Any], least: str, most: str, of: str = "") -> str:
    signs = {least: "≥", "exclusiveMinimum": ">", "gt": ">", "ge": "≥"}
    signs |= {most: "≤", "exclusiveMaximum": "<", "lt": "<", "le": "≤"}
    found = [f"{sign} {key[name]:g}" for name, sign in signs.items() if isinstance(key.get(name), (int, float))]
    return f"{', ' if of else ' '}{of}{', '.join(found)}" if found else ""


def _unit(name: str) -> str:
    units = {**MORE_UNITS, **UNITS}
    return units.get(name.rpartition("_")[2], "") if "_" in name else ""


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return ", ".join(_value(one) for one in value) if isinstance(value, list) else f"`{value}`"


# ---- commands ----


def commands() -> Iterator[str]:
    """The page of all commands, each with what its ``--help`` says."""
    yield "# Commands"
    yield (
        f"Every command of `{PROGRAM}` with its arguments and options, as `{PROGRAM} COMMAND --help` prints them. "
        "[command_line.md](command_line.md) says what holds for all of them: exit codes, streams, files for "
        "results."
    )
    for name in _command(None).commands:
        yield from _command_help((name,), _command(name).commands[name])


def _command(called: str | None) -> Any:
    return typer.main.get_command(make_app(called))


def _command_help(path: tuple[str, ...], command: Any) -> Iterator[str]:
    if inner := getattr(command, "commands", None):
        for name, one in inner.items():
            yield from _command_help((*path, name), one)
        return
    context = command.make_context(" ".join((PROGRAM, *path)), [], resilient_parsing=True)
    yield f"## {' '.join(path)}\n{_plain(command.help or '')}"
    rows = [record for one in command.params if (record := one.get_help_record(context))]
    if rows:
        yield table(("argument or option", "meaning"), ((f"`{name}`", _plain(text)) for name, text in rows))


def _plain(text: str) -> str:
    """A help text in one paragraph, with what Markdown would take for a tag or emphasis shown as it is."""
    return re.sub(r"([<>*_])", r"\\\1", " ".join(text.split()))


# ---- drivers ----


def drivers(root: Path) -> Iterator[str]:
    """The page of all devices and of the drivers that ship for them."""
    yield "# Drivers"
    yield (
        "Every device of a line, what its driver must offer, and the drivers that ship with the package, with the "
        "keys of `settings:` in a site file. [how-to/drivers.md](../how-to/drivers.md) explains how to write and "
        "check a driver of your own, which is named by `driver: module:Class`."
    )
    for device in DEVICES:
        base = base_class(device)
        yield f"## {device}\n`{base.__module__}.{base.__name__}`: {first_paragraph(base.__doc__)}"
        if (root / FOLDER / f"{device}.md").is_file():
            yield f"[{device}.md]({device}.md) describes what the device itself must do."
        yield table(("member", "meaning"), _members(base))
        for kind in find_device(device).drivers:
            driver = find_driver(device, kind)
            about = first_paragraph(importlib.import_module(driver.__module__).__doc__)
            yield f"### {device}: {kind}\n{about} Class `{driver.__module__}.{driver.__name__}`."
            yield settings_table(driver.Settings)


def _members(base: type[Any]) -> Iterator[tuple[str, str]]:
    """The public members of a driver's base class, inherited ones first, each with its docstring's first lines."""
    owners = [owner for owner in reversed(base.__mro__) if owner.__module__.startswith("battery_sorting.")]
    members = {name: member for owner in owners for name, member in vars(owner).items() if not name.startswith("_")}
    for name, member in members.items():
        if isinstance(member, property) or inspect.isfunction(member):
            call = "" if isinstance(member, property) else "()"
            choice = "" if getattr(member, "__isabstractmethod__", False) else " (may be overridden)"
            yield f"`{name}{call}`{choice}", first_paragraph(inspect.getdoc(member))


def main() -> None:
    """Write the files into the source tree that is given, or the working directory."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for name, text in files(root).items():
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
