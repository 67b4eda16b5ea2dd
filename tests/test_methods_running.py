"""What the command line asks of a method by name."""

import pytest

from recloop.errors import SettingError
from recloop.methods.dpo4rec_config import Dpo4RecConfig
from recloop.methods.rerec_config import ReRecConfig
from recloop.methods.running import config_model, quick


def test_methods_have_their_settings():
    assert config_model("dpo4rec") is Dpo4RecConfig
    assert config_model("rerec") is ReRecConfig
    with pytest.raises(SettingError, match="no method rerank; the methods are dpo4rec, rerec"):
        config_model("rerank")


def test_quick_is_a_smaller_study_where_there_is_one():
    small = quick(ReRecConfig(seeds=(5, 6)))
    assert isinstance(small, ReRecConfig)
    assert small.seeds == (5,)
    with pytest.raises(SettingError, match="--quick is for rerec"):
        quick(Dpo4RecConfig())
