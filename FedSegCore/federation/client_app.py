"""The Flower client app: answers a query and trains one round, through the site's ``TrainerPort``.

A site's runner calls ``make_client_app`` with its own trainer. The module's ``app`` has none and refuses: a stock
SuperNode that is pointed at this bundle trains nothing.

Exceptions never reach Flower, which would send their text (paths, names) to the server: the answer holds a stable
code, and the local log the rest.
"""

import logging
from collections.abc import Callable

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from FedSegCore.common.errors import BadInputError, CannotDoHereError, FedSegError
from FedSegCore.common.names import is_name
from FedSegCore.federation.checks import check_order, check_own_result
from FedSegCore.federation.messages import (
    SiteIntroduction,
    read_order,
    read_query,
    write_failure,
    write_introduction,
    write_result,
)
from FedSegCore.federation.release_messages import ReleaseTaker, answer_about_releases, is_about_releases
from FedSegCore.federation.software import app_fingerprint, software_versions
from FedSegCore.federation.trainer_port import AnswerWatch, SiteDescription, TrainerPort
from FedSegCore.learning.results import RoundResult

SITE_KEY = "site"
"""Entry of Flower's node configuration with the site's name."""

_logger = logging.getLogger(__name__)


def make_client_app(
    trainer: TrainerPort, watch: AnswerWatch | None = None, taker: ReleaseTaker | None = None
) -> ClientApp:
    """Return a Flower client app that asks ``trainer``; the site's name comes from the node's configuration.

    Args:
        trainer: the site.
        watch: told of introductions and refusals; None in experiments.
        taker: takes releases; None takes none.
    """
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        return answer(message, context, trainer, watch, taker)

    app.query()(handle)
    app.train()(handle)
    return app


def answer(
    message: Message,
    context: Context,
    trainer: TrainerPort,
    watch: AnswerWatch | None = None,
    taker: ReleaseTaker | None = None,
) -> Message:
    """Return the answer to a query or train message; never raises."""

    def work() -> RecordDict:
        if is_about_releases(message.content) and _is_query(message):
            return _about_releases(message.content, taker)
        return _content(message, context, trainer, watch)

    return Message(_guarded(work, watch), reply_to=message)


def _is_query(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == MessageType.QUERY


def _about_releases(content: RecordDict, taker: ReleaseTaker | None) -> RecordDict:
    if taker is None:
        raise CannotDoHereError("release.not-taken", "No releases are taken here.", "Copy them as files.")
    return answer_about_releases(content, taker)


def _guarded(work: Callable[[], RecordDict], watch: AnswerWatch | None) -> RecordDict:
    try:
        return work()
    except FedSegError as error:
        _logger.warning("answering with %s: %s", error.code, error)
        return _failure(error, watch)
    except Exception:
        _logger.exception("answering with site.failed")
        return _failure(FedSegError("site.failed", "The site failed.", "Its log says why."), watch)


def _failure(error: FedSegError, watch: AnswerWatch | None) -> RecordDict:
    if watch is not None:
        try:
            watch.refused(error)
        except Exception:
            # the server must get its answer: a SuperNode waits for ever for a missing one, and a code tells nothing
            _logger.exception("the refusal could not be journalled")
    return write_failure(error.code)


def _content(message: Message, context: Context, trainer: TrainerPort, watch: AnswerWatch | None) -> RecordDict:
    if _is_query(message):
        if watch is not None:
            watch.asked(read_query(message.content))
        description = trainer.describe()
        content = write_introduction(_introduction(context, description))
        if watch is not None:
            watch.introduced(description, content)
        return content
    order, weights = read_order(message.content)
    check_order(order, weights, trainer.describe())
    result = trainer.train_round(order.task, weights, order.request)
    check_own_result(result)
    return write_result(result, order.round_number)


def _introduction(context: Context, description: SiteDescription) -> SiteIntroduction:
    name = context.node_config.get(SITE_KEY)
    if not isinstance(name, str) or not is_name(name):
        raise BadInputError("site.name", "The site has no usable name.", "Join with an invitation again.")
    return SiteIntroduction(
        site=name,
        modality=description.modality,
        training_cases=description.training_cases,
        validation_cases=description.validation_cases,
        software=software_versions(),
        fingerprint=app_fingerprint(),
    )


class _NoTrainer:
    def describe(self) -> SiteDescription:
        raise _refusal()

    def train_round(self, *_: object) -> RoundResult:
        raise _refusal()


def _refusal() -> CannotDoHereError:
    return CannotDoHereError(
        "site.no-trainer", "This app was not started by a site.", "Start the site: its processes start this app."
    )


app = make_client_app(_NoTrainer())
