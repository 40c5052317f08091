"""TOML FILES AND OVERRIDES -> DATACLASSES -> TOML. Knows none of mem1's settings by name.

    base.toml, more.toml, "engine.model=x" -> read_tables -> {"engine": {"model": "x", …}, …}
    table -> build -> dataclass of dataclasses -> dump_toml -> text that builds an equal dataclass
    "window(k=2)", "package.module:Class", "entry-point" -> make_part -> what it names

What a file says and no field takes is an error, never ignored.
"""

import dataclasses
import difflib
import importlib
import importlib.metadata
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError

from mem1.errors import ConfigError

Table = dict[str, Any]
"""A TOML table: strings, numbers, booleans, lists and tables, by name."""

T = TypeVar("T")


def read_tables(files: Sequence[Path | str], *, overrides: Sequence[str] = ()) -> Table:
    """Merge TOML files, later over earlier, then `dotted.path=value` overrides over all of them.

    Raises: ConfigError for a file that's missing or not TOML, or an override without `=`.
    """
    table: Table = {}
    for file in files:
        table = merge(table, _read_toml(Path(file)))
    for override in overrides:
        table = merge(table, _parse_override(override))
    return table


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """`base` with the values of `over`, table by table.

    A table of another `kind` replaces the old one: what it held belongs to the old kind.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            other_kind = "kind" in value and value["kind"] != old.get("kind")
            merged[key] = dict(value) if other_kind else merge(old, value)
        else:
            merged[key] = value
    return merged


def _read_toml(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _parse_override(text: str) -> Table:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {text}: write  section.key=value")
    table: Any = parse_value(value.strip())
    for key in reversed(path.strip().split(".")):
        table = {key: table}
    return table


def parse_value(text: str) -> Any:
    """A TOML literal; what isn't one is a string, so that paths and names need no quotes.

    >>> parse_value("300"), parse_value("[1, 2]"), parse_value("models/smol")
    (300, [1, 2], 'models/smol')
    """
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def build(cls: type[T], table: Mapping[str, Any], *, at: str = "") -> T:
    """Make a dataclass of a table, its dataclass fields of the tables inside.

    Args: `at`, dotted path of the table, for messages. A field whose type is a union of
    dataclasses takes the one whose `kind` the table names, else its default.
    Raises: ConfigError naming the dotted path of an unknown, missing or mistyped value.
    """
    known = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown setting {_join(at, key)}{suggestion(key, known)}")
    for name, field in known.items():
        required = (field.default, field.default_factory) == (dataclasses.MISSING,) * 2
        if required and name not in table:
            raise ConfigError(f"missing setting {_join(at, name)}: {cls.__name__} needs it")
    hints = get_type_hints(cls)
    values = {
        name: _value(hints[name], value, at=_join(at, name), default=known[name].default_factory)
        for name, value in table.items()
    }
    return cls(**values)


def _value(kind: Any, value: Any, *, at: str, default: Any) -> Any:
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    classes: list[Any] = [option for option in options if dataclasses.is_dataclass(option)]
    if not classes:
        return _plain(kind, value, at=at)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{at} = {value!r}: it's a table, write  [{at}]")
    if len(classes) == 1:
        return build(classes[0], value, at=at)
    if default in classes and "kind" not in value:
        return build(default, value, at=at)
    by_kind = {get_type_hints(c)["kind"].__args__[0]: c for c in classes}
    name = value.get("kind")
    if not isinstance(name, str) or name not in by_kind:
        said = f" = {name!r}" if "kind" in value else " is missing"
        raise ConfigError(f"{at}.kind{said}: it's one of {', '.join(by_kind)}")
    return build(by_kind[name], value, at=at)


def _plain(kind: Any, value: Any, *, at: str) -> Any:
    """Validate as JSON, where a list may be a tuple but a string is never a number."""
    try:
        return TypeAdapter(kind).validate_json(orjson.dumps(value), strict=True)
    except (ValidationError, TypeError) as error:
        message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{at} = {value!r}: {message[:1].lower()}{message[1:]}") from error


def make_part(spec: str, *, at: str, known: Mapping[str, type[Any]] = MappingProxyType({})) -> Any:
    """What a name of ours, or one as in `find_part`, stands for: a class is called with the
    settings behind it, anything else is taken as it is.

    Args: `spec`, `name` or `name(key=value, …)`; `at`, the config's key.
    Raises: ConfigError for what can't be found or made.
    """
    match = re.fullmatch(r"\s*([\w.:-]+)\s*(?:\((.*)\))?\s*", spec)
    if not match:
        raise ConfigError(f"{at}: {spec!r} isn't of the form  name(key=value, …)")
    name, arguments = match[1], match[2] or ""
    if known and not (name in known or ":" in name or _entry_points(name)):
        raise ConfigError(f"{at}: unknown {name}{suggestion(name, known)}")
    found = known[name] if name in known else find_part(name, at=at)
    if arguments and not dataclasses.is_dataclass(found):
        raise ConfigError(f"{at}: {name} isn't a dataclass, its settings are unknown")
    if not isinstance(found, type):
        return found
    try:
        if not dataclasses.is_dataclass(found):
            return found()
        table = tomllib.loads(f"settings = {{ {arguments} }}")["settings"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{at}: {spec!r}: write settings as  k=2: {error}") from error
    except TypeError as error:
        raise ConfigError(f"{at}: {name} can't be made without settings: {error}") from error
    return build(found, table, at=f"{at}.{name}")


def find_part(name: str, *, at: str) -> Any:
    """What `package.module:Name` names, or an entry point that an installed package has in group
    `mem1`. Args: `at`, the config's key. Raises: ConfigError if there's no such thing."""
    module, colon, attribute = name.partition(":")
    points = [] if colon else [*_entry_points(name)]
    if not (colon or points):
        raise ConfigError(
            f"{at} {name}: no installed package has an entry point of this name in group mem1; "
            "for a module write  package.module:Name"
        )
    if len(points) > 1:
        raise ConfigError(f"{at} {name}: several packages give it: {[p.value for p in points]}")
    try:
        return points[0].load() if points else getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{at} {name}: {error}") from error


def _entry_points(name: str) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group="mem1", name=name)


def suggestion(word: str, known: Iterable[str]) -> str:
    """What else was meant: the closest known word, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f": did you mean {close[0]}?" if close else f": there is {', '.join(names)}"


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def to_table(config: Any) -> Table:
    """A dataclass as a TOML table: None is left out, since TOML has no word for it."""
    return _tidy(dataclasses.asdict(config))


def _tidy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _tidy(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_tidy(item) for item in value]
    return value


def dump_toml(table: Mapping[str, Any]) -> str:
    """TOML text of a table of tables; what is nested deeper is written inline."""
    lines: list[str] = []
    for name, section in table.items():
        lines += [
            f"[{_key(name)}]",
            *(f"{_key(k)} = {_literal(v)}" for k, v in section.items()),
            "",
        ]
    return "\n".join(lines)


def _literal(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case Mapping():
            return "{" + ", ".join(f"{_key(k)} = {_literal(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(_literal(item) for item in value) + "]"
        case _:
            # TOML's basic strings are JSON's, but for one character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _literal(name)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], *, at: str = "") -> list[str]:
    """Dotted paths at which two tables differ, in order."""
    paths: list[str] = []
    for key in dict.fromkeys((*old, *new)):
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            paths += differences(left, right, at=_join(at, key))
        elif left != right:
            paths.append(_join(at, key))
    return paths
