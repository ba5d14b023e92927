"""The environment variables of a settings class: their names, values and misspellings."""

import difflib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from example_service.core.exceptions import SettingProblem

DELIMITER = "__"

# A group name with at least this similarity to a known one is a misspelling (1.0 means equal).
_ALIKE = 0.75
# Names without a group are only compared if they are long, and more strictly, because they may
# belong to other programs.
_NEARLY_EQUAL = 0.93
_LONG = 8

# Many images read a secret from the file that such a variable names. This service has SECRETS_DIR.
_FILE_SUFFIX = "_FILE"


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable and the field that it sets.

    Attributes:
        path: The attribute names and mapping keys from the settings object to the value.
        field: The pydantic field.
    """

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        """The name of the variable, such as `LIMITS__MAX_BODY_BYTES`."""
        return DELIMITER.join(self.path).upper()

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be shown."""
        return mentions(self.field.annotation, SecretStr)

    @property
    def default_text(self) -> str:
        """The default as the text of an environment variable; empty if there is none."""
        default = self.field.get_default(call_default_factory=True)
        # A default is part of the source code, so it is not secret.
        return as_text(default.get_secret_value() if isinstance(default, SecretStr) else default)

    @property
    def example(self) -> str:
        """A valid line for the environment."""
        examples = self.field.examples
        return f"{self.name}={as_text(examples[0]) if examples else self.default_text}"

    def value_in(self, settings: BaseSettings) -> object:
        """Return the value of the variable in a settings object."""
        value: Any = settings
        for part in self.path:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value


def mentions(annotation: object, sought: type) -> bool:
    """Whether an annotation is a type or contains it, as `int | None` contains `int`."""
    return annotation is sought or any(mentions(part, sought) for part in get_args(annotation))


def as_text(value: object) -> str:
    """Convert the value of a setting to the text of an environment variable."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def variables(settings_class: type[BaseSettings], keys: Iterable[str]) -> list[Variable]:
    """List the variables of a settings class, in the order of their declaration.

    Args:
        settings_class: A class whose fields are plain values, groups (models) or mappings from
            names to groups. Groups may be nested.
        keys: The names to list for each mapping.
    """
    names = tuple(keys)
    return [
        Variable(path, field)
        for field_name, field in settings_class.model_fields.items()
        for path, field in _leaves((field_name,), field, names)
    ]


def _leaves(
    path: tuple[str, ...], field: FieldInfo, keys: Collection[str]
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    group, is_mapping = _group_model(field)
    if group is None:
        yield path, field
        return
    prefixes = [(*path, key) for key in keys] if is_mapping else [path]
    for prefix in prefixes:
        for name, member in group.model_fields.items():
            yield from _leaves((*prefix, name), member, keys)


def _group_model(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    """The model of a group field, and whether the field is a mapping from names to groups."""
    is_mapping = get_origin(field.annotation) is dict
    candidate = get_args(field.annotation)[1] if is_mapping else field.annotation
    if isinstance(candidate, type) and issubclass(candidate, BaseModel):
        return candidate, is_mapping
    return None, False


def group_names(settings_class: type[BaseSettings]) -> dict[str, bool]:
    """The names of group fields, and whether each is a mapping from names to groups."""
    models = {name: _group_model(field) for name, field in settings_class.model_fields.items()}
    return {name: is_mapping for name, (model, is_mapping) in models.items() if model is not None}


def unknown_variables(
    settings_class: type[BaseSettings], given: Iterable[str]
) -> list[SettingProblem]:
    """Find variables that have the prefix of one of our groups, but are not settings.

    It also finds known fields in a misspelled group (`LIMIT__MAX_BODY_BYTES`), a mapping as a
    single variable or with single underscores (`CIRCUIT_BREAKERS`), names that are similar to a
    setting without a group (`ENVIROMENT`), and the file of a secret (`DATABASE_URL_FILE`). All
    other names belong to other programs.

    Args:
        settings_class: The class of the settings.
        given: The names of the variables that are set, in upper or lower case.
    """
    names = [name.upper() for name in given]
    catalogue = _Catalogue(settings_class, names)
    return [problem for name in names if (problem := catalogue.problem_with(name)) is not None]


class _Catalogue:
    """The known names, and suggestions for unknown ones."""

    def __init__(self, settings_class: type[BaseSettings], given: Iterable[str]) -> None:
        groups = {
            name.upper(): is_mapping for name, is_mapping in group_names(settings_class).items()
        }
        self._groups = groups.keys()
        self._mappings = [name for name, is_mapping in groups.items() if is_mapping]
        # Any text between two delimiters may be the key of a mapping. A default key makes the
        # fields of mappings known even if no variable has one.
        parts = [name.lower().split(DELIMITER) for name in given if DELIMITER in name]
        keys = {key for _, key, *rest in parts if key and rest} or {"name"}
        known = variables(settings_class, sorted(keys))
        self._examples = {variable.name: variable.example for variable in known}
        self._secrets = {variable.name for variable in known if variable.is_secret}
        self._alone = [
            example
            for example in self._examples
            if DELIMITER not in example and len(example) >= _LONG
        ]

    def problem_with(self, name: str) -> SettingProblem | None:
        if name in self._examples:
            return None
        if name.endswith(_FILE_SUFFIX) and name.removesuffix(_FILE_SUFFIX) in self._secrets:
            return SettingProblem(
                name,
                "is not a setting; SECRETS_DIR names a folder in which a file "
                f"{name.removesuffix(_FILE_SUFFIX)} has the value",
                "SECRETS_DIR=/run/secrets",
            )
        if DELIMITER not in name:
            meant = self._undelimited(name)
            return self._unknown(name, meant) if meant else None
        if (alone := name.replace(DELIMITER, "_")) in self._examples:
            return self._unknown(name, [alone])
        group, _, rest = name.partition(DELIMITER)
        if group in self._groups:
            return self._unknown(name, self._completed(name) or self._similar(name))
        # A name with an additional word in its group belongs to another program.
        meant = [
            f"{other}{DELIMITER}{rest}"
            for other in difflib.get_close_matches(group, self._groups, n=1, cutoff=_ALIKE)
            if other.count("_") == group.count("_")
        ]
        known = [candidate for candidate in meant if candidate in self._examples]
        return self._unknown(name, known) if known else None

    def _undelimited(self, name: str) -> list[str]:
        if name in self._mappings:
            return self._completed(name)
        for mapping in self._mappings:
            fields = {known.rpartition(DELIMITER)[2] for known in self._completed(mapping)}
            if name.startswith(f"{mapping}_") and name.endswith(
                tuple(f"_{field}" for field in fields)
            ):
                return self._similar(name)
        # A name with a suffix is a separate variable, such as DATABASE_URL_2.
        others = [example for example in self._alone if not name.startswith(example)]
        return difflib.get_close_matches(name, others, n=1, cutoff=_NEARLY_EQUAL)

    def _completed(self, name: str) -> list[str]:
        return [known for known in self._examples if known.startswith(name + DELIMITER)]

    def _similar(self, name: str) -> list[str]:
        return difflib.get_close_matches(name, self._examples, n=1)

    def _unknown(self, name: str, meant: list[str]) -> SettingProblem:
        shown = name if name.isprintable() else ascii(name)
        if not meant:
            return SettingProblem(shown, "is not a setting; unset it")
        return SettingProblem(
            shown, f"is not a setting; did you mean {meant[0]}?", self._examples[meant[0]]
        )


def validation_problems(
    settings_class: type[BaseSettings], error: ValidationError
) -> list[SettingProblem]:
    """Convert pydantic's errors to problems with environment variables, without their values."""
    problems: dict[str, SettingProblem] = {}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = [str(part) for part in detail["loc"] if isinstance(part, str)]
        known = {v.name: v for v in variables(settings_class, path[1:2])}
        name = DELIMITER.join(path).upper()
        example = known[name].example if name in known else ""
        # Each item of a list may have an error. Only the first one is reported.
        problems.setdefault(name, SettingProblem(name, _reworded(detail["msg"]), example))
    return list(problems.values())


def _reworded(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return message.removeprefix("String ").removeprefix("Value ")
