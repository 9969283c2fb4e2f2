"""The forms of a model: one function of its input, in more or fewer layers.

Operations are counted, models are exported and speed is measured in a form. Its name, what it means
and how `spikebench.inference.deploy` makes it are said here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, cast

from spikebench.registry import unknown_name

Form = Literal["as-coded", "dense", "paper"]


class FormInfo(NamedTuple):
    """Definition of a form.

    Attributes:
        title: the heading of a table's column.
        meaning: one clause, as help texts and messages have it.
        deploy: the arguments of `deploy` that make it; None of the model as it is.
    """

    title: str
    meaning: str
    deploy: Mapping[str, bool] | None = None


FORMS: Mapping[Form, FormInfo] = MappingProxyType(
    {
        "as-coded": FormInfo("as coded", "the model as its code has it"),
        # fastest on dense hardware, where separable convolutions spare multiplications
        "dense": FormInfo(
            "norms folded",
            "batch norms folded into convolutions",
            {"fold_norms": True, "fuse": False},
        ),
        # what the papers' energies assume: spikes meet every weight
        "paper": FormInfo(
            "re-param.",
            "batch norms folded, and linear convolutions in a row fused into one",
            {"fold_norms": True, "fuse": True},
        ),
    }
)
"""All forms by name."""

DEPLOY_FORMS: Mapping[Form, Mapping[str, bool]] = MappingProxyType(
    {name: form.deploy for name, form in FORMS.items() if form.deploy is not None}
)
"""The arguments of `deploy` for each form that is not the model as it is."""

RECORDED_FORMS: tuple[Form, ...] = ("as-coded", "paper")
"""The forms whose counts a record holds; an estimator may charge another one as well."""


def known_form(name: str, known: Iterable[str] = FORMS) -> Form:
    """The name of a form.

    Args:
        name: as a user gives it.
        known: the forms to choose from.

    Raises:
        UnknownNameError: there is no such form; the message lists those there are.
    """
    if name not in known:
        raise unknown_name("form", name, known)
    return cast(Form, name)


def describe_forms(names: Iterable[Form] = FORMS) -> str:
    """The names and meanings of forms in one line, for help texts.

    >>> describe_forms(["dense"])
    'dense (batch norms folded into convolutions)'
    """
    return "; ".join(f"{name} ({FORMS[name].meaning})" for name in names)
