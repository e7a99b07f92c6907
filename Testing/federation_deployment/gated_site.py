"""What the server would get from a site whose trainer listens behind its socket, and what its journal says of it."""

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny_deployment import tiny_federation, tiny_policy

from FedSegCore.federation.client_app import answer
from FedSegCore.federation.initial_model import initial_model
from FedSegCore.federation.messages import RoundOrder, write_order
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Entry
from FedSegCore.federation.site.journal_watch import JournalWatch
from FedSegCore.federation.site.policy import SitePolicy, write_policy
from FedSegCore.federation.site.trainer_client import TrainerClient
from FedSegCore.federation.tasks import training_task
from FedSegCore.federation.tensors import to_record
from FedSegCore.learning.privacy import PrivacyRules

Served = tuple[SiteFolder, bytes]


def ask(site: SiteFolder, content: RecordDict, kind: str) -> RecordDict:
    """Return what the server would get from the site's client app."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(content, 1, kind)
    context = Context(run_id=1, node_id=1, node_config={"site": "a"}, state=RecordDict(), run_config={})
    return answer(message, context, TrainerClient(site), JournalWatch(site.journal)).content


def order(privacy: PrivacyRules | None = None, rounds: int = 2, **training: object) -> RecordDict:
    config = tiny_federation()
    config = tiny_federation(training={**config.training.model_dump(), **training})
    task = training_task(config, "CT")
    asked = RoundOrder(group="CT", round_number=1, rounds=rounds, seed=3, task=task, privacy=privacy or PrivacyRules())
    return write_order(asked, to_record(initial_model(task.network, 3)))


def train(site: SiteFolder, content: RecordDict) -> RecordDict:
    return ask(site, content, MessageType.TRAIN)


def entries(site: SiteFolder) -> list[Entry]:
    assert site.journal.verify().whole
    return [line.entry for line in site.journal.lines()]


def only_a_code(content: RecordDict) -> str:
    assert list(content) == ["failure"]
    assert list(content["failure"]) == ["code"]
    return str(content["failure"]["code"])


def with_privacy(site: SiteFolder, **rules: object) -> None:
    privacy = PrivacyRules.model_validate({**tiny_policy().privacy.model_dump(), **rules})
    write_policy(site.policy_file, SitePolicy(privacy=privacy, limits=tiny_policy().limits))
