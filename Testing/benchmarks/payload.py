"""Bytes and Dice of every form of exchange: ``python Testing/benchmarks/payload.py [--rounds 16]``.

Three generated patients' sites (two CT, one MR) train one small 2-D U-Net together, seeded, once for every form; the
first, full precision, is the baseline of all ratios. Writes ``docs/scale-payload.json``. Dice is that of the last
round's model on the sites' validation patients, mean over sites and labels.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from FedSegCore.augmentation.config import AugmentationConfig
from FedSegCore.federation.compression import lowered
from FedSegCore.federation.config import AggregationConfig, FederationConfig
from FedSegCore.federation.federated_run import run_in_process
from FedSegCore.federation.messages import RoundOrder, write_order
from FedSegCore.federation.payload import payload_of
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.config import TrainingConfig
from FedSegCore.learning.exchange import ExchangeConfig
from FedSegCore.networks.config import NetworkConfig
from FedSegCore.phantoms.torso import TORSO_CONTRACT, make_patient
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING

DOCS = Path(__file__).resolve().parents[2] / "docs"
FORMS = {
    "float32": ExchangeConfig(),
    "float16 both ways": ExchangeConfig(precision="float16", downlink="float16"),
    "int8, float16 down": ExchangeConfig(precision="int8", downlink="float16"),
    "float16, largest quarter": ExchangeConfig(precision="float16", top_k=0.25),
    "int8, largest tenth": ExchangeConfig(precision="int8", top_k=0.1),
}
SITES = {"ct-1": ("CT", 0), "ct-2": ("CT", 10), "mr-1": ("MR", 20)}
COARSE = (6.0, 6.0, 6.0)
"""Spacing of the prepared images, mm: enough for this and quick."""

TRAINING = TrainingConfig(
    patch_size=(1, 48, 48), batch_size=8, steps_per_round=20, learning_rate=1e-2, final_learning_rate=1e-3
)


def federation(form: ExchangeConfig, rounds: int) -> FederationConfig:
    """Return the federation that is trained."""
    return FederationConfig(
        name="payload",
        grouping="together",
        contract=TORSO_CONTRACT,
        rounds=rounds,
        seed=1,
        aggregation=AggregationConfig(rule="fedavg"),
        training=TRAINING,
        augmentation=AugmentationConfig(spatial=None, gin=None),
        preprocessing={
            name: DEFAULT_PREPROCESSING[name].model_copy(update={"spacing": COARSE}) for name in ("CT", "MR")
        },
        networks={"default": NetworkConfig(dimensions=2, options={"channels": [8, 16, 32]})},
        exchange=form,
    )


def cohort(modality: str, first: int) -> Cohort:
    """Return two patients to train on and one to score on."""
    cases = []
    for seed in range(first, first + 3):
        patient = make_patient(modality, seed, size="test")
        cases.append(TrainingCase(f"case-{seed}", f"patient-{seed}", patient.image, patient.labels, patient.annotated))
    preprocessing = federation(FORMS["float32"], 1).preprocessing_of(modality)
    return Cohort.prepare(cases[:2], cases[2:], preprocessing, TORSO_CONTRACT)


def measure(form: ExchangeConfig, rounds: int, cohorts: dict[str, tuple[str, Cohort]]) -> dict[str, Any]:
    """Return what one form costs and gives."""
    config = federation(form, rounds)
    folder = Path(tempfile.mkdtemp(prefix="fedseg-payload-"))
    try:
        group = run_in_process(config, dict(cohorts), folder).groups["all"]
    finally:
        shutil.rmtree(folder)
    last = [row for row in group.history if row.round_number == rounds]
    order = RoundOrder(group="all", round_number=1, rounds=rounds, seed=1, task=training_task(config, "CT"))
    scores = [fmean(score.dice for score in row.scores) for row in last]
    return {
        "bytes_up": round(fmean(row.payload_bytes for row in last)),
        "bytes_down": payload_of(write_order(order, to_record(lowered(group.model, form)))).bytes,
        "dice": round(fmean(scores), 4),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    cohorts = {name: (modality, cohort(modality, first)) for name, (modality, first) in SITES.items()}
    rows: list[dict[str, Any]] = []
    for name, form in FORMS.items():
        row = {"form": name, **measure(form, given.rounds, cohorts)}
        row["bytes_up_ratio"] = round(row["bytes_up"] / (rows or [row])[0]["bytes_up"], 3)
        row["dice_difference"] = round(row["dice"] - (rows or [row])[0]["dice"], 4)
        rows.append(row)
        print(row, flush=True)  # noqa: T201 - a command
        told = {"rounds": given.rounds, "rows": rows}
        (given.docs / "scale-payload.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
