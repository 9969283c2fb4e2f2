import inspect
from typing import get_args

import pytest

from spikebench.forms import DEPLOY_FORMS, FORMS, RECORDED_FORMS, Form, describe_forms, known_form
from spikebench.inference.deploy import deploy
from spikebench.registry import UnknownNameError


def test_every_form_is_explained_and_made_by_deploy():
    assert tuple(FORMS) == get_args(Form)
    assert set(RECORDED_FORMS) <= set(FORMS)
    flags = set(inspect.signature(deploy).parameters) - {"model"}
    for name, form in FORMS.items():
        assert f"{name} ({form.meaning})" in describe_forms()
        assert form.deploy is None or set(form.deploy) == flags
    assert set(FORMS) - set(DEPLOY_FORMS) == {"as-coded"}


def test_an_unknown_form_is_named():
    assert known_form("paper") == "paper"
    with pytest.raises(UnknownNameError, match="papers"):
        known_form("papers")
    with pytest.raises(UnknownNameError, match="as-coded"):
        known_form("as-coded", DEPLOY_FORMS)
