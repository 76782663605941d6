"""Reads YAML settings so that whoever wrote them learns of every fault at once, each with its place and remedy."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from battery_sorting.core.bounded import DEEPEST, MIB, read_text
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.front_end import option
from battery_sorting.core.private_files import write_private
from battery_sorting.core.secrets import without_passwords

LARGEST = MIB
MOST_VALUES = 50_000
"""Of a settings file: bytes, and values when each alias (``*name``) is written out."""
PACKAGE = "battery_sorting"

UNITS = {
    "mm": "millimetres",
    "ms": "milliseconds",
    "s": "seconds",
    "mps": "metres per second",
    "mb": "megabytes",
    "hz": "hertz",
}
_FOREIGN_UNITS = {"m", "cm", "um", "in", "inch", "us", "sec", "min", "mm_s", "m_s", "kmh", "gb", "kb"}

Location = tuple[str | int, ...]


class Settings(BaseModel):
    """Base of everything that is read from a settings file: no unknown keys, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


SettingsT = TypeVar("SettingsT", bound=BaseModel)
ResolvedT = TypeVar("ResolvedT", bound="ResolvedSettings")
SiteT = TypeVar("SiteT", bound="SiteSettings")


class ResolvedSettings(Settings):
    """Settings that are checked once, and then read by all processes of a run from its run folder."""

    @classmethod
    def load_resolved(cls: type[ResolvedT], path: str | Path) -> ResolvedT:
        """Read the settings as they were checked and written into the run folder.

        Raises:
            ConfigurationError: The file is missing or was changed by hand to something invalid.
        """
        document = read_document(Path(path))
        result = validate(cls, document)
        document.raise_if_faulty()
        assert result is not None
        return result

    def save_resolved(self, path: Path) -> None:
        """Write the settings with all defaults and overrides, for `load_resolved`; nobody else may read them."""
        write_private(path, self.model_dump_json(indent=2))


class Network(Settings):
    """Whom the nodes of the line listen to."""

    discovery: Literal["localhost", "subnet"] = Field(
        default="localhost",
        description="localhost: nothing outside of this host is heard; subnet: every host of the network is",
    )


class SiteSettings(ResolvedSettings):
    """Base of the site files in config/sites. Sub-classes add what is there and what of it can not go together."""

    network: Network = Field(default=Network(), description="whom the nodes listen to")
    plant: dict[str, Any] | None = Field(
        default=None, description="settings of the simulated plant; it is started only where this section stands"
    )

    @field_validator("plant")
    @classmethod
    def _ports_are_ports(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """The plant checks its settings itself; its ports go into the drivers' settings before that."""
        for key, port in (value or {}).items():
            if str(key).endswith("_port") and (type(port) is not int or not 0 <= port <= 65535):
                raise ValueError(
                    f"{key}: {_short(port)} is no port: give a number up to 65535, or 0 for any free one"
                )
        return value

    @property
    def simulated(self) -> bool:
        """Whether the line runs on the simulated plant."""
        return self.plant is not None

    @classmethod
    def misfits(cls: type[SiteT], document: Document, site: SiteT | None) -> list[str]:
        """What does not fit together in ``document``; ``site`` is None when it has faults of its own."""
        raise NotImplementedError

    @classmethod
    def load(
        cls: type[SiteT],
        name: str,
        overrides: Sequence[str] = (),
        check_drivers: Callable[[Any], list[str]] | None = None,
    ) -> SiteT:
        """Read and check a site file.

        Args:
            name: Name of a file in config/sites, or a path.
            overrides: ``key.key=value``, applied before the checks.
            check_drivers: Says what is wrong with the drivers and their settings. (Drivers are above core.)

        Raises:
            ConfigurationError: With every fault of the file, each with its path and remedy.
        """
        document = read_document(find_config("sites", name), overrides)
        site = validate(cls, document)
        document.problems += cls.misfits(document, site)
        if site is not None and check_drivers is not None:
            document.problems += check_drivers(site)
        document.raise_if_faulty()
        assert site is not None
        return site


class RecipeSettings(ResolvedSettings):
    """Base of the recipes, files in config/recipes."""

    @classmethod
    def load(cls: type[ResolvedT], name: str, overrides: Sequence[str] = ()) -> ResolvedT:
        """Read and check a recipe: the name of a file in config/recipes, or a path.

        Raises:
            ConfigurationError: With every fault of the file, each with its path and remedy.
        """
        document = read_document(find_config("recipes", name), overrides)
        recipe = validate(cls, document)
        document.raise_if_faulty()
        assert recipe is not None
        return recipe


@dataclass
class Document:
    """Content of one settings file, with what is needed to point at a fault in it."""

    source: str
    data: Any
    lines: dict[Location, int] = field(default_factory=dict)
    overridden: dict[Location, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def describe(self, location: Location, problem: str) -> str:
        """``problem`` with its path in the file, and with its line or the override that it came from."""
        place = format_location(location)
        for changed, override in reversed(self.overridden.items()):
            if location and (location[: len(changed)] == changed or changed[: len(location)] == location):
                return f"{place} (set by {override}): {problem}"
        line = next(
            (self.lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in self.lines), None
        )
        return f"{place}: {problem}" if line is None else f"line {line}: {place}: {problem}"

    def raise_if_faulty(self, more: Iterable[str] = ()) -> None:
        """Raise one `ConfigurationError` with all problems, if there are any."""
        problems = list(dict.fromkeys([*self.problems, *more]))
        if problems:
            raise ConfigurationError(self.source, problems)


def format_location(location: Location) -> str:
    """``("ejectors", 2, "offset_mm")`` as ``ejectors[2].offset_mm``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top level)"


def parse_location(text: str) -> Location:
    """Inverse of `format_location`; also takes ``ejectors.2.offset_mm``."""
    parts = [part for part in re.split(r"[.\[\]]+", text.strip()) if part]
    return tuple(int(part) if part.isdigit() else part for part in parts)


# ---- finding files ----


def share_directories() -> list[Path]:
    """Where config/ and models/ stand: working directory, source tree, installed package (those that exist)."""
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    prefixes.append(Path(sys.prefix))  # installed by pip, without ROS
    candidates = [Path.cwd(), Path(__file__).resolve().parents[2], *(p / "share" / PACKAGE for p in prefixes)]
    return [path for path in dict.fromkeys(candidates) if path.is_dir()]


def find_config(kind: str, name: str) -> Path:
    """File of the site or recipe ``name``: a path, or the name of a file in ``config/<kind>/``.

    Raises:
        ConfigurationError: There is none; names those that exist.
    """
    path = Path(name).expanduser()
    if path.suffix or len(path.parts) > 1:
        with contextlib.suppress(OSError, ValueError):  # no file can have such a name
            if path.exists():
                return path
        raise ConfigurationError(name, [f"there is no such file (looked in {Path.cwd()})"])
    folders = [share / "config" / kind for share in share_directories()]
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    remedy = _closest(name, known) or f"known are: {', '.join(known) or 'none'}"
    raise ConfigurationError(name, [f"no file {name}.yaml in config/{kind}: {remedy}, or give the path of a file"])


def find_shared(name: str) -> Path | None:
    """Absolute path of something that ships with the package, such as ``models/battery_type/1``, or None."""
    with contextlib.suppress(OSError, ValueError):  # no file can have such a name: it is too long, or has a NUL
        for share in share_directories():
            if (share / name).exists():
                return (share / name).absolute()
    return None


# ---- reading ----


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML file and apply ``overrides`` (``a.b[2].c=value``, the value in YAML).

    Faults that leave the file readable (repeated keys, bad overrides) are collected in ``problems``.

    Raises:
        ConfigurationError: The file can't be read, is no YAML, or is no mapping.
    """
    source = str(path)
    try:
        text = read_text(path, LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigurationError(source, [f"can't be read: {reason}"]) from error
    try:
        tree, data = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(source, [f"is not valid YAML: {_one_line(error)}"]) from error
    except (ValueError, TypeError) as error:  # impossible dates, unhashable keys, endless nesting
        raise ConfigurationError(source, [f"is not valid YAML: {error}"]) from error
    if not isinstance(data, dict):
        raise ConfigurationError(source, ["must be a mapping of keys to values, like 'name: sim'"])
    document = Document(source, data)
    _note_lines(tree, (), document, set())
    for override in overrides:
        _apply_override(document, override)
    return document


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Nodes and values of a YAML text.

    Raises:
        yaml.YAMLError: It is none.
        ValueError: It holds an impossible value, is nested too deeply, or has so many aliases of aliases that
            written out it would never end.
        TypeError: A key can't be one.
    """
    loader = yaml.SafeLoader(text)
    try:
        tree = loader.get_single_node()
        if tree is None:
            return None, None
        _count(tree, {}, set())  # before the values are made: merge keys write aliases out
        return tree, loader.construct_document(tree)
    except RecursionError:
        raise ValueError(f"is nested more than {DEEPEST} deep") from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Values in ``node`` with every alias written out."""
    if id(node) in above:
        return 1  # a circle; `_note_lines` says so
    if len(above) > DEEPEST:
        raise ValueError(f"line {node.start_mark.line + 1}: is nested more than {DEEPEST} deep")
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = list(node.value)
        elif isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count(part, known, above | {id(node)}) for part in inner)
        if known[id(node)] > MOST_VALUES:
            raise ValueError(
                f"line {node.start_mark.line + 1}: holds more than {MOST_VALUES} values when every alias is "
                "written out"
            )
    return known[id(node)]


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _note_lines(node: yaml.Node | None, location: Location, document: Document, above: set[int]) -> None:
    if node is None:
        return
    if id(node) in above:
        problem = "an alias stands within what it is an alias of, and would never end"
        document.problems.append(f"line {node.start_mark.line + 1}: {format_location(location)}: {problem}")
        return
    above = above | {id(node)}
    document.lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*location, index), document, above)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*location, str(key.value))
            if here in document.lines:
                first = document.lines[here]
                line = key.start_mark.line + 1
                problem = f"the key stands twice (first in line {first}): remove one"
                document.problems.append(f"line {line}: {format_location(here)}: {problem}")
            document.lines.setdefault(here, key.start_mark.line + 1)
            key_line = document.lines[here]
            _note_lines(value, here, document, above)
            document.lines[here] = key_line


def _apply_override(document: Document, override: str) -> None:
    text, equals, value_text = override.partition("=")
    location = parse_location(text)
    label = without_passwords(option("set", override))
    if not equals or not location:
        document.problems.append(f"{label}: write it as key.key=value, for example belt.exit_offset_mm=2100")
        return
    try:
        tree, value = parse_yaml(value_text)
    except yaml.YAMLError as error:
        document.problems.append(f"{label}: the value is not valid YAML: {_one_line(error)}")
        return
    except (ValueError, TypeError) as error:  # impossible dates, unhashable keys, endless nesting
        document.problems.append(f"{label}: the value is not valid YAML: {error}")
        return
    given = Document(label, value)
    _note_lines(tree, location, given, set())
    if given.problems:
        document.problems += [f"{label}: {problem}" for problem in given.problems]
        return
    target: Any = document.data
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(target, list):
            if not isinstance(part, int) or part >= len(target):
                where = format_location(location[:depth])
                document.problems.append(f"{label}: {where} is a list of {len(target)}, with the indices from 0")
                return
        elif not isinstance(target, dict):
            document.problems.append(f"{label}: {format_location(location[:depth])} is a value and has no keys")
            return
        elif not last and target.get(part) is None:
            target[part] = {}
        if last:
            target[part] = value
        else:
            target = target[part]
    document.overridden[location] = label


# ---- validating ----


def validate(model: type[SettingsT], document: Document, at: Location = ()) -> SettingsT | None:
    """The part of ``document`` at ``at`` as a ``model``, or None when it has faults: see ``problems`` then."""
    data = document.data
    for part in at:
        data = data[part]
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for fault in error.errors():
            location = (*at, *fault["loc"])
            document.problems.append(document.describe(location, _explain(model, fault)))
        return None


def parts_that_parse(model: type[SettingsT], items: Any) -> Iterator[tuple[int, SettingsT]]:
    """The well-formed ones of a list of raw items with their indices: lets checks go on beside other faults."""
    for index, item in enumerate(items if isinstance(items, list) else []):
        try:
            yield index, model.model_validate(item)
        except ValidationError:
            continue


def _explain(model: type[BaseModel], fault: Any) -> str:
    location: Location = fault["loc"]
    kind = fault["type"]
    if kind == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        return f"unknown key; {_suggest_key(str(location[-1]), owner)}"
    info = _field_at(model, location)
    wanted = f": {info.description}" if info is not None and info.description else ""
    if kind == "missing":
        return f"this key is missing{wanted}"
    if kind in {"value_error", "assertion_error"}:
        return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = str(fault["msg"]).replace("Input should be ", "must be ")
    if kind == "literal_error":
        close = _closest(str(fault["input"]), re.findall(r"'([^']+)'", message))
        wanted = f"; {close}" if close else wanted
    return f"{message}, not {_short(fault['input'])}{wanted}"


def _short(value: object) -> str:
    text = without_passwords(repr(value))  # before it is cut: half an address is not known for one
    return text if len(text) <= 60 else text[:57] + "..."


def _suggest_key(key: str, owner: type[BaseModel] | None) -> str:
    fields = dict(owner.model_fields) if owner is not None else {}
    same_quantity = [name for name in fields if _stem(name) == _stem(key) and _stem(name) != name]
    if same_quantity:
        name = same_quantity[0]
        return f"did you mean '{name}', in {UNITS[name.rpartition('_')[2]]}?"
    close = _closest(key, list(fields))
    return close or f"allowed are: {', '.join(fields)}"


def _stem(name: str) -> str:
    for unit in sorted({*UNITS, *_FOREIGN_UNITS}, key=len, reverse=True):
        if name.endswith(f"_{unit}"):
            return name[: -len(unit) - 1]
    return name


def _closest(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""


def suggest(name: str, known: Sequence[str]) -> str:
    """Remedy for a name that isn't one of ``known``: the closest one, or all of them."""
    return _closest(name, known) or f"known are: {', '.join(known) or 'none'}"


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields.get(str(part))
            current = None if info is None else _inner(info.annotation)
        else:
            current = _inner(_item_type(current))
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _field_at(model: type[BaseModel], location: Location) -> FieldInfo | None:
    if not location:
        return None
    owner = _model_at(model, location[:-1])
    if owner is not None:
        return owner.model_fields.get(str(location[-1]))
    return _field_at(model, location[:-1])


def _inner(annotation: Any) -> Any:
    """``X`` of ``X | None``."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
        return options[0] if len(options) == 1 else None
    return annotation


def _item_type(annotation: Any) -> Any:
    """Type of the items of ``tuple[X, ...]``, ``list[X]`` or ``dict[str, X]``."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return None
    return arguments[-1] if typing.get_origin(annotation) in (dict, Mapping) else arguments[0]


# ---- values that smell of another unit ----


def not_in_metres(value: Any) -> Any:
    """Validator for lengths in mm: refuses 0.6."""
    return _refuse_fraction(value, "mm", "metres", 1000)


def not_in_seconds(value: Any) -> Any:
    """Validator for times in ms: refuses 0.012."""
    return _refuse_fraction(value, "ms", "seconds", 1000)


def _refuse_fraction(value: Any, unit: str, suspected: str, factor: int) -> Any:
    if isinstance(value, float) and 0 < abs(value) < 1:
        raise ValueError(f"{value:g} is smaller than 1 {unit}: given in {suspected}? Write {value * factor:g}")
    return value


def share_not_percent(value: Any) -> Any:
    """Validator for shares of 0..1: refuses 80."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 1 < value <= 100:
        raise ValueError(f"{value:g} is given in percent: it must be 0..1, write {value / 100:g}")
    return value
