"""TOML's tables into ours, or a problem for each value that does not fit, with where it stands."""

from __future__ import annotations

import json
import re
from collections import abc
from collections.abc import Callable, Iterator, Mapping
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin

import attrs
from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, override

from socksd.app.config.limits import Limit, Limits
from socksd.app.config.tables import Config
from socksd.app.config.targets import Route
from socksd.app.config.values import Reader, a_name, kind_of
from socksd.errors import ConfigError, Problem, did_you_mean

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


# cattrs walks the classes, goes on after a problem, and knows where it was.
# What it would convert in silence (a number into a string, a string into a
# list of its letters) these hooks refuse.
_converter = Converter()


def _form_is(form: object) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is form


@_converter.register_structure_hook_factory(_form_is(Annotated))
def _value(kind: Any) -> Callable[[object, object], Any]:
    read: Reader[Any] = get_args(kind)[1]
    return lambda value, _: read(value)


@_converter.register_structure_hook_factory(_form_is(tuple))
def _list(kind: Any) -> Callable[[object, object], Any]:
    items: Any = GenericAlias(list, get_args(kind)[:1])

    def structure(value: object, _: object) -> Any:
        if isinstance(value, dict):
            raise ValueError("must be a list of tables: write it with two brackets, [[...]]")
        if not isinstance(value, list):
            raise ValueError(f"must be a list, not {kind_of(value)}: write [...]")
        return tuple(_converter.structure(value, items))

    return structure


@_converter.register_structure_hook_factory(_form_is(abc.Mapping))
def _named(kind: Any) -> Callable[[object, object], Any]:
    inside = get_args(kind)[1]

    def structure(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must hold tables by their names, not be {kind_of(value)}")
        made, wrong = {}, []
        for name, table in value.items():
            try:
                made[a_name(name)] = _converter.structure(table, inside)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is about this table
                error.add_note(AttributeValidationNote(f"in {name}", name, inside))
                wrong.append(error)
        if wrong:
            raise ClassValidationError("tables", wrong, inside)
        return made

    return structure


@_converter.register_structure_hook_factory(attrs.has)
def _table(kind: Any) -> Callable[[object, object], Any]:
    read = make_dict_structure_fn(kind, _converter, _cattrs_forbid_extra_keys=True)

    def structure(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be a table, not {kind_of(value)}")
        return read(value, kind)

    return structure


_converter.register_structure_hook(
    Config,
    make_dict_structure_fn(
        Config,
        _converter,
        _cattrs_forbid_extra_keys=True,
        # What the policy is made of has loaders of its own.
        rule=override(omit=True),
        sets=override(omit=True),
        groups=override(omit=True),
        test=override(omit=True),
    ),
)


def structured(tables: Mapping[str, object]) -> Config:
    """
    Make a configuration of TOML's tables, but for what the policy is made of.

    Raises:
        ConfigError: Values do not fit; all of them.
    """
    try:
        return _converter.structure(tables, Config)
    except ClassValidationError as error:
        raise ConfigError(list(_problems(error, ""))) from None


def _problems(error: Exception, path: str) -> Iterator[Problem]:
    match error:
        case ClassValidationError():
            at_keys, elsewhere = error.group_exceptions()
            for inner, note in at_keys:
                yield from _problems(inner, _below(path, note.name))
            for inner in elsewhere:
                yield from _problems(inner, path)
        case IterableValidationError():
            at_items, _ = error.group_exceptions()
            for inner, item in at_items:
                yield from _problems(inner, f"{path}[{item.index}]")
        case ForbiddenExtraKeysError():
            known = [attribute.name for attribute in attrs.fields(error.cl)]
            for key in sorted(error.extra_fields):
                hint = _home(key) or did_you_mean(key, known)
                if error.cl is Limits and not hint:
                    hint = "; limits that rules name stand under [limit.NAME]"
                yield Problem(_below(path, key), f"there is no such key{hint}")
        case KeyError():
            yield Problem(path, "is missing")
        case _:
            yield Problem(path, str(error))


def _home(key: str) -> str:
    """Say in which table a key stands, as a clause to put behind a message; else ''."""
    for table in attrs.fields(Config):
        kind = type(table.default)
        if attrs.has(kind) and key in attrs.fields_dict(kind):
            return f"; it stands under [{table.name}]"
    for name, kind in (("limit", Limit), ("route", Route)):
        if key in attrs.fields_dict(kind):
            return f"; it stands under [{name}.NAME]"
    return ""


def _below(path: str, key: str) -> str:
    written = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
    return f"{path}.{written}" if path else written
