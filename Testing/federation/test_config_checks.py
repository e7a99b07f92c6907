"""A federation's file is refused when it is read, in words, where its parts do not agree."""

from pathlib import Path

import pytest
from federation_helpers import federation

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.config import read_federation_config
from FedSegCore.federation.config_checks import check_federation

FILE = """
name = "polyps"
grouping = "together"
[[contract.labels]]
name = "polyp"
value = 1
type = { code = "41329004", meaning = "Polyp" }
colour = [200, 80, 80]
[aggregation]
rule = "RULE"
[aggregation.options]
momentum = 0.5
[training.fedgs]
log_base = 100.0
"""


def written(folder: Path, rule: str, text: str = FILE) -> Path:
    path = folder / "federation.toml"
    path.write_text(text.replace("RULE", rule))
    return path


def test_a_file_is_read_with_its_rule_checked(tmp_path):
    assert read_federation_config(written(tmp_path, "fedgs")).aggregation.options == {"momentum": 0.5}
    for rule, code in (("fedavg", "federation.rule-options"), ("best", "federation.rule-unknown")):
        with pytest.raises(BadInputError) as error:
            read_federation_config(written(tmp_path, rule))
        assert error.value.code == code


@pytest.mark.parametrize("aggregation", [{"rule": "fedgs"}, {"rule": "flames", "options": {"update": "fedgs"}}])
def test_fedgs_needs_sites_that_send_it(tmp_path, aggregation):
    on, off = {"fedgs": {}}, {}
    check_federation(federation(aggregation=aggregation, training=on))
    check_federation(federation(aggregation=aggregation, grouping="together", training=off, trainings={"all": on}))
    for training, trainings in ((off, {}), (off, {"CT": on}), (on, {"CT": off})):
        with pytest.raises(BadInputError) as error:
            check_federation(federation(aggregation=aggregation, training=training, trainings=trainings))
        assert error.value.code == "federation.fedgs-off"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ('[networks.default]\nname = "best"', "network.unknown"),
        ('[networks.default]\nname = "utnet"\ndimensions = 3', "network.dimensions"),
        ("[networks.default.options]\nwidth = 3", "network.options"),
        ('[networks.default.options]\nnorm = "batch"', "federation.batch-norm-policy"),
        ('[training]\nloss = "best"', "loss.unknown"),
        ('[training]\nloss = "flames"\nloss_options = { dice = 1 }', "loss.options"),
        ('[training]\nschedule = "best"', "schedule.unknown"),
        ("[networks.default]\ndimensions = 2", "training.task"),
        ('[training.oversampling]\nlabels = ["lesion"]', "fedgs.label-unknown"),
        ('[trainings.all]\nfedgs = { labels = ["lesion"] }', "fedgs.label-unknown"),
        ('[trainings.all]\nfedgs = {}\nloss = "best"', "loss.unknown"),
    ],
)
def test_what_sites_would_refuse_in_their_first_round_is_refused_on_reading(tmp_path, change, code):
    with pytest.raises(BadInputError) as error:
        read_federation_config(written(tmp_path, "fedgs", f"{FILE}{change}\n"))
    assert error.value.code == code


def test_what_sites_take_is_read(tmp_path):
    text = FILE.replace("momentum = 0.5", 'batch_norm = "local"')
    text += '[networks.default]\ndimensions = 2\noptions = { norm = "batch" }\n[training]\npatch_size = [1, 64, 64]\n'
    assert read_federation_config(written(tmp_path, "fedgs", text)).networks["default"].dimensions == 2
