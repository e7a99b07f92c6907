"""Why a site gave nothing, in words for the coordinator."""

_CODES = {
    "site.late": "did not answer within the round's deadline",
    "site.paused": "by its people, or it trains at other hours; it is asked again",
    "site.left": "it has left the federation",
    "site.failed": "could not train; its own log says why",
    "site.name-taken": "another connected site has this name",
    "site.protocol": "speaks another version of the federation's messages",
    "site.flower-version": "runs another version of Flower",
    "site.modality": "has images of a modality that the federation does not train",
    "site.name": "is registered under a name that cannot be used",
    "node.silent": "did not say who it is",
    "node.restarted": "was started anew during the round",
    "node.unreachable": "could not be reached",
    "node.unavailable": "was not connected",
    "node.bundle-refused": "has not approved this version of the app",
    "node.app-crashed": "its app ended in the middle of the round",
    "gate.too-few-cases": "it has too few patients to answer",
    "group.all-failed": "no usable answer, or too few, in three tries",
    "group.no-sites": "no site is connected, or too few",
    "trainer.gone": "its trainer ended and is started again",
}
_PREFIXES = {
    "gate.": "its outgoing gate held the answer back",
    "policy.": "its own policy does not allow what was asked",
    "reply.": "its answer could not be used",
    "tensors.": "its answer's tensors could not be used",
    "request.": "could not read what was asked; compare the versions",
    "cohort.": "its cohort cannot be used",
    "device.": "its device has too little memory or is not there",
    "node.": "its node gave no answer",
    "bundle.": "has not approved this version of the app",
}


def code_words(code: str) -> str:
    """Return in words why a site gave nothing; empty for a code without words."""
    found = _CODES.get(code)
    return found or next((words for prefix, words in _PREFIXES.items() if code.startswith(prefix)), "")
