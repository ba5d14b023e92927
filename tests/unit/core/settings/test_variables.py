"""Names of environment variables, and how misspelt ones are found."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings

from example_service.core.settings import Settings
from example_service.core.settings.variables import (
    as_text,
    group_names,
    unknown_variables,
    variables,
)


class Fruit(BaseModel):
    """A group."""

    weight_grams: float = Field(default=1.5, examples=[2.5])
    label: str | None = None
    pin: Annotated[SecretStr, AfterValidator(lambda pin: pin)] | None = None


class Basket(BaseSettings):
    """Settings with every kind of field."""

    size: int = 3
    delivery_day: str = "Monday"
    fruit: Fruit = Fruit()
    prices: dict[str, Fruit] = {}


def test_each_field_has_one_variable() -> None:
    """Groups and the existing keys of mappings are expanded in order of declaration."""
    names = [variable.name for variable in variables(Basket, ["apple"])]

    assert names == [
        "SIZE",
        "DELIVERY_DAY",
        "FRUIT__WEIGHT_GRAMS",
        "FRUIT__LABEL",
        "FRUIT__PIN",
        "PRICES__APPLE__WEIGHT_GRAMS",
        "PRICES__APPLE__LABEL",
        "PRICES__APPLE__PIN",
    ]


def test_values_are_found_through_groups_and_mappings() -> None:
    """The name of a variable leads to the value of its field."""
    basket = Basket(prices={"apple": Fruit(label="red")})

    values = {v.name: v.value_in(basket) for v in variables(Basket, ["apple"])}

    assert values["SIZE"] == 3
    assert values["FRUIT__WEIGHT_GRAMS"] == 1.5
    assert values["PRICES__APPLE__LABEL"] == "red"


def test_secrets_are_recognized() -> None:
    """An optional secret counts as well."""
    secrets = [v.name for v in variables(Basket, []) if v.is_secret]

    assert secrets == ["FRUIT__PIN"]


def test_groups_and_mappings_are_distinguished() -> None:
    """A plain field is neither a group nor a mapping."""
    assert group_names(Basket) == {"fruit": False, "prices": True}


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "true"), (1.5, "1.5"), ("a", "a"), (["*"], '["*"]')]
)
def test_values_are_written_as_in_the_environment(value: object, text: str) -> None:
    """The shown value can be copied into `.env`."""
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FRUIT__WEIGHT", "FRUIT__WEIGHT_GRAMS"),
        ("FRUITS__WEIGHT_GRAMS", "FRUIT__WEIGHT_GRAMS"),
        ("fruit__lable", "FRUIT__LABEL"),
        ("PRICES__PEAR__LABLE", "PRICES__PEAR__LABEL"),
        ("PRICE__PLUM__LABEL", "PRICES__PLUM__LABEL"),
        ("FRUIT__COLOUR_OF_THE_PEEL", None),
        ("PRICES__APPLE", "PRICES__APPLE__WEIGHT_GRAMS"),
        ("PRICES__", None),
        ("PRICES", "PRICES__APPLE__WEIGHT_GRAMS"),
        ("PRICES_APPLE_LABEL", "PRICES__APPLE__LABEL"),
        ("PRICES_PLUM_LABEL", "PRICES__APPLE__LABEL"),
        ("DELIVERY__DAY", "DELIVERY_DAY"),
        ("DELIVRY_DAY", "DELIVERY_DAY"),
    ],
)
def test_a_misspelling_is_found(name: str, meant: str | None) -> None:
    """The closest known name is suggested, if there is one."""
    problems = unknown_variables(Basket, [name, "PRICES__APPLE__LABEL"])

    (problem,) = problems
    assert problem.variable == name.upper()
    if meant is not None:
        assert f"did you mean {meant}?" in problem.problem
        assert problem.example.startswith(f"{meant}=")


def test_the_file_of_a_secret_is_pointed_to_the_folder_of_secrets() -> None:
    """Other images read such variables; ignoring one would use the default instead."""
    (problem,) = unknown_variables(Basket, ["FRUIT__PIN_FILE"])

    assert problem.variable == "FRUIT__PIN_FILE"
    assert "a file FRUIT__PIN has the value" in problem.problem
    assert problem.example == "SECRETS_DIR=/run/secrets"


def test_the_url_of_the_database_is_not_taken_from_a_variable_for_files() -> None:
    """Without this the service would start with an empty SQLite database."""
    (problem,) = unknown_variables(Settings, ["DATABASE_URL_FILE"])

    assert problem.variable == "DATABASE_URL_FILE"


def test_names_of_other_programs_are_left_alone() -> None:
    """Variables outside the groups and correct names are not reported."""
    names = [
        *(
            "SIZE",
            "SIZES",
            "SIZE__X",
            "PATH",
            "DELIVERY_DATE",
            "DELIVERY_DAY_2",
            "DELIVERY_DAY_FILE",
            "DELIVERY",
            "PRICES_OF_OIL",
        ),
        *(
            "FRUIT",
            "FRUIT_LABEL",
            "MY_FRUIT_LABEL",
            "MY_FRUIT__LABEL",
            "TREE__LABEL",
            "FRUIT__LABEL",
        ),
    ]

    assert unknown_variables(Basket, [*names, "PRICES__PLUM__PIN"]) == []


def test_control_characters_in_a_name_are_escaped() -> None:
    """The name stays on one line of the table."""
    (problem,) = unknown_variables(Basket, ["FRUIT__\n\x1b[31m"])

    assert problem.variable.isprintable()
