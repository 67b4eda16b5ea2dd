"""The steps of ReRec, in their order; each kind is declared beside the function that does it."""

from recloop.evaluation.report import REPORT_STEP
from recloop.methods.rerec.data import EMBED, PREPARE
from recloop.methods.rerec.next_item_eval import NEXT_BASELINES, SAMPLE_NEXT
from recloop.methods.rerec.report import ANSWER, EVALUATE, RETENTION
from recloop.methods.rerec.train import REINFORCE, SUPERVISE

STEPS = (
    PREPARE, EMBED, SUPERVISE, REINFORCE, ANSWER, RETENTION, SAMPLE_NEXT, NEXT_BASELINES, EVALUATE, REPORT_STEP,
)  # fmt: skip
