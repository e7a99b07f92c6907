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
