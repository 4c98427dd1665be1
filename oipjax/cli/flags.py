"""Flags made of dataclasses: each field is a flag, and its documentation is the help text."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

MARKERS = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
"""``--stop`` without ``--no-stop``; ``--steps`` instead of ``--config.ascent.steps``."""

Options = TypeVar("Options")


class BadOption(Exception):
    """An option has a value that its dataclass refuses.

    It is no ValueError, because tyro would draw a box around the message of one.
    """


class Typed(NamedTuple):
    """How a person types a field whose Python type does not suit the command line.

    Attributes:
        type: the type on the command line.
        show: gives the typed form of a field's value.
        read: gives the field's value of its typed form.
    """

    type: Any
    show: Callable[[Any], Any]
    read: Callable[[Any], Any]


class Varying(NamedTuple):
    """A command whose defaults depend on some of its own options.

    Attributes:
        choose: gives the function to call, with its defaults, for a list of arguments.
    """

    choose: Callable[[list[str]], Callable[..., None]]


def registry(typed: Mapping[str, Typed], hidden: Collection[str]) -> ConstructorRegistry:
    """The rule by which tyro makes flags of any dataclass.

    Args:
        typed: fields that are typed in another form, by a name such as ``AscentConfig.method``.
        hidden: such names of fields that have no flag; they keep their defaults.
    """
    rules = ConstructorRegistry()

    @rules.struct_rule
    def flags_of(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type):
            return None
        has_default = isinstance(info.default, info.type)
        return _specification(info.default if has_default else info.type(), typed, hidden)

    return rules


def _specification(
    default: Any, typed: Mapping[str, Typed], hidden: Collection[str]
) -> StructConstructorSpec:
    """The flags of one dataclass, of which ``default`` holds the default values."""
    kind = type(default)
    texts = help_texts(kind)
    types = typing.get_type_hints(kind, include_extras=True)
    fields: dict[str, StructFieldSpec] = {}
    readers: dict[str, Callable[[Any], Any]] = {}
    for field in dataclasses.fields(default):
        name = field.name
        full_name = f"{kind.__name__}.{name}"
        if full_name in hidden:
            continue
        form = typed.get(full_name, Typed(type=types[name], show=_as_it_is, read=_as_it_is))
        readers[name] = form.read
        fields[name] = StructFieldSpec(
            name=name,
            type=form.type,
            default=form.show(getattr(default, name)),
            helptext=texts.get(name, ""),
        )

    def build(**values: Any) -> Any:
        changed = {}
        try:
            for name, value in values.items():
                if value != fields[name].default:
                    changed[name] = readers[name](value)
            return dataclasses.replace(default, **changed)
        except ValueError as error:
            raise BadOption(str(error)) from None

    return StructConstructorSpec(instantiate=build, fields=tuple(fields.values()))


def _as_it_is(value: Any) -> Any:
    return value


def help_texts(kind: type) -> dict[str, str]:
    """The documentation of a dataclass's fields, from its docstring and those of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= _attributes(inspect.cleandoc(base.__doc__ or ""))
    return texts


def _attributes(docstring: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    name = ""
    _, _, section = docstring.partition("\nAttributes:\n")
    for line in section.splitlines():
        begin = re.fullmatch(r" {4}(\w+): (.*)", line)
        if begin:
            name, text = begin.groups()
            texts[name] = text
        elif name and line.startswith(" " * 8):
            texts[name] += f" {line.strip()}"
        else:
            break
    return {name: text.replace("`", "") for name, text in texts.items()}


def call(
    command: Callable[..., None], prog: str, arguments: list[str], rules: ConstructorRegistry
) -> None:
    """Call a command with the options that the arguments give."""
    tyro.cli(command, prog=prog, args=arguments, config=MARKERS, registry=rules)


def read_some(
    kind: type[Options], prog: str, arguments: list[str], rules: ConstructorRegistry
) -> Options:
    """The options of one dataclass; arguments that belong to others are ignored."""
    options, _ = tyro.cli(
        kind,
        prog=prog,
        args=arguments,
        config=MARKERS,
        registry=rules,
        add_help=False,
        return_unknown_args=True,
    )
    return options
