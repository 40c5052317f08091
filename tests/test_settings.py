"""TOML and overrides in, dataclasses out; nothing that was written is ignored."""

import tomllib
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mem1.errors import ConfigError
from mem1.settings import build, differences, dump_toml, merge, parse_value, read_tables, to_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sword:
    kind: Literal["sword"] = "sword"
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bow:
    kind: Literal["bow"] = "bow"
    arrows: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    first: str
    nick: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hero:
    weapon: Sword | Bow
    name: Name
    speed: float = 1.0
    tags: tuple[str, ...] = ()
    levels: int | dict[int, int] = 1
    friends: dict[str, int] = field(default_factory=dict)


TABLE = {"weapon": {"kind": "bow"}, "name": {"first": "Ann"}}


def test_a_table_becomes_a_dataclass_of_dataclasses():
    table = TABLE | {"tags": ["a", "b"], "speed": 2, "levels": {"1": 6, "8": 20}}
    assert build(Hero, table) == Hero(
        weapon=Bow(), name=Name(first="Ann"), speed=2.0, tags=("a", "b"), levels={1: 6, 8: 20}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sped": 2}, "unknown setting sped: did you mean speed?"),
        ({"name": {"frist": "x"}}, "unknown setting name.frist: did you mean first?"),
        ({"zzz": 2}, "unknown setting zzz: there is weapon, name, speed"),
        ({"name": {}}, "missing setting name.first"),
        ({"name": "Ann"}, "name = 'Ann': it's a table"),
        ({"speed": "fast"}, "speed = 'fast': input should be a valid number"),
        ({"levels": "7"}, "levels = '7': input should be a valid integer"),
        ({"tags": "a"}, "tags = 'a': input should be a valid"),
        ({"weapon": {"kind": "axe"}}, "weapon.kind = 'axe': it's one of sword, bow"),
        ({"weapon": {"arrows": 3}}, "weapon.kind is missing: it's one of sword, bow"),
        ({"weapon": {"kind": "bow", "length": 3}}, "unknown setting weapon.length"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(change, message):
    with pytest.raises(ConfigError) as caught:
        build(Hero, TABLE | change)
    assert message in str(caught.value)


def test_later_files_and_overrides_win(tmp_path):
    (tmp_path / "a.toml").write_text('[x]\na = 1\nb = 1\nc = "k"')
    (tmp_path / "b.toml").write_text("[x]\nb = 2")
    files = [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert read_tables(files, overrides=["x.c=models/smol", "x.d=[1, 2]"]) == {
        "x": {"a": 1, "b": 2, "c": "models/smol", "d": [1, 2]}
    }


def test_a_table_of_another_kind_replaces_the_old_one():
    old = {"weapon": {"kind": "bow", "arrows": 3}}
    assert merge(old, {"weapon": {"kind": "sword", "length": 1}}) == {
        "weapon": {"kind": "sword", "length": 1}
    }
    assert merge(old, {"weapon": {"kind": "bow"}}) == old


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ('"3"', "3"),
        ("a b", "a b"),
        ("", ""),
        ("{1 = 6}", {"1": 6}),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_override_values_are_toml_or_else_strings(text, value):
    assert parse_value(text) == value


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.toml").write_text("[x\n")
    with pytest.raises(ConfigError, match=r"none.toml: no such config file"):
        read_tables([tmp_path / "none.toml"])
    with pytest.raises(ConfigError, match=r"bad.toml: not a TOML file: .*line 1"):
        read_tables([tmp_path / "bad.toml"])
    with pytest.raises(ConfigError, match=r"--set x: write  section.key=value"):
        read_tables([], overrides=["x"])


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
    max_leaves=4,
)


@settings(max_examples=25)
@given(st.dictionaries(st.text(), st.dictionaries(st.text(), values, max_size=3), max_size=3))
def test_written_toml_reads_back_equal(table):
    assert tomllib.loads(dump_toml(table)) == table


def test_a_dataclass_survives_being_written():
    hero = Hero(weapon=Sword(length=3), name=Name(first='"A"\n'), levels={1: 6}, friends={"b": 1})
    table = to_table(hero)
    assert table["name"] == {"first": '"A"\n'}
    assert build(Hero, table) == hero


def test_differences_are_dotted_paths():
    old, new = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"x": 1, "y": 3, "z": 0}, "b": 1}
    assert differences(old, new) == ["a.y", "a.z"]
