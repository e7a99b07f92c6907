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


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    """Some editors of Windows put one before the text."""
    path = written(tmp_path, "fedgs")
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_federation_config(path).aggregation.rule == "fedgs"


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


PARTS = """
name = "parts"
GROUPING
[[contract.labels]]
name = "liver"
value = 1
type = { code = "10200004", meaning = "Liver" }
colour = [200, 80, 80]
"""
TOGETHER = 'grouping = "together"'
PLANE = "dimensions = 2"
PATCH = "patch_size = [1, 64, 64]"
ENDOSCOPY = 'modality = "ES"\nin_plane_size = [96, 96]\npercentiles = [0.0, 100.0]\nchannels = 3'
FLOWER = '[aggregation]\nrule = "flower"\n[aggregation.options]\n'


@pytest.mark.parametrize(
    ("grouping", "text", "code"),
    [
        ("", f"[networks.mri]\n{PLANE}", "federation.group-unknown"),
        ("", "[trainings.Mr]\nbatch_size = 4", "federation.group-unknown"),
        ("", "[trainings.all]\nbatch_size = 4", "federation.group-unknown"),
        (TOGETHER, f"[networks.CT]\n{PLANE}", "federation.group-unknown"),
        (TOGETHER, "[trainings.CT]\nbatch_size = 4", "federation.group-unknown"),
        (TOGETHER, f'[preprocessing.CT]\nmodality = "CT"\nwindow = [-1.0, 1.0]\n[preprocessing.ES]\n{ENDOSCOPY}',
         "federation.channels"),
        ("", f"[networks.MR]\n{PLANE}", "training.task"),
        ("", f"[networks.default]\n{PLANE}\n[training]\n{PATCH}\n[trainings.MR]\nbatch_size = 4", "training.task"),
        ("", '[training]\nschedule = "fedgin_plateau"\nvalidate_received = false', "federation.invalid"),
        ("", f'{FLOWER}strategy = "FedProx"', "federation.fedprox-off"),
        ("", f'{FLOWER}strategy = "FedProx"\n[training]\nproximal = 0.1\n[trainings.MR]\nbatch_size = 4',
         "federation.fedprox-off"),
        ("", f'{FLOWER}strategy = "FedProx"\narguments = {{ proximal_mu = 0.1 }}', "federation.rule-options"),
        ("", f'{FLOWER}strategy = "FedTrimmedAvg"\narguments = {{ beta = 0.5 }}', "federation.rule-options"),
        ("", "[training.fedgs]\nlog_base = 100.0", "federation.fedgs-unused"),
        ("", '[aggregation]\nrule = "fedavg"\n[trainings.CT.fedgs]', "federation.fedgs-unused"),
        ("min_sites = 6", f'{FLOWER}strategy = "Bulyan"\narguments = {{ num_malicious_nodes = 1 }}',
         "federation.too-few-sites"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_in_silence_is_refused(tmp_path, grouping, text, code):
    with pytest.raises(BadInputError) as error:
        read_federation_config(written(tmp_path, "", PARTS.replace("GROUPING", grouping) + text))
    assert error.value.code == code


@pytest.mark.parametrize(
    ("grouping", "text"),
    [
        ("", f"[networks.MR]\n{PLANE}\n[trainings.MR]\n{PATCH}"),
        (TOGETHER, f"[networks.all]\n{PLANE}\n[trainings.all]\n{PATCH}"),
        ("", '[trainings.NM]\nbatch_size = 4\n[preprocessing.NM]\nmodality = "NM"\nwindow = [0.0, 1.0]'),
        ("", '[training]\nschedule = "fedgin_plateau"'),
        ("", '[aggregation]\nrule = "flames"\noptions = { update = "fedgs" }\n[training.fedgs]'),
        ("", f'{FLOWER}strategy = "FedProx"\n[training]\nproximal = 0.1'),
        ("min_sites = 7", f'{FLOWER}strategy = "Bulyan"\narguments = {{ num_malicious_nodes = 1 }}'),
        ("min_answers = 7", f'{FLOWER}strategy = "Bulyan"\narguments = {{ num_malicious_nodes = 1 }}'),
    ],
)
def test_its_right_neighbour_is_read(tmp_path, grouping, text):
    read_federation_config(written(tmp_path, "", PARTS.replace("GROUPING", grouping) + text))


def test_one_model_serves_the_modalities_with_its_channels():
    assert set(federation(grouping="together").modalities) == {"CT", "MR", "US"}
    assert set(federation().modalities) == {"CT", "MR", "US", "ES"}
    endoscopy = {"modality": "ES", "in_plane_size": (96, 96), "percentiles": (0.0, 100.0), "channels": 3}
    config = federation(grouping="together", preprocessing={"ES": endoscopy})
    assert config.modalities == ("ES",)
    assert [network.in_channels for network in config.possible_networks()] == [3]
    with pytest.raises(BadInputError, match=r"federation\.modality-unknown"):
        config.preprocessing_of("CT")


def test_what_sites_take_is_read(tmp_path):
    text = FILE.replace("momentum = 0.5", 'batch_norm = "local"')
    text += '[networks.default]\ndimensions = 2\noptions = { norm = "batch" }\n[training]\npatch_size = [1, 64, 64]\n'
    assert read_federation_config(written(tmp_path, "fedgs", text)).networks["default"].dimensions == 2
