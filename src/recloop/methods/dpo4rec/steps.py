"""The steps of DPO4Rec, in their order; each kind is declared beside the function that does it."""

from recloop.evaluation.report import REPORT_STEP
from recloop.methods.dpo4rec.ablations import SAMPLE_MATCHED
from recloop.methods.dpo4rec.compare import EVALUATE
from recloop.methods.dpo4rec.data import PREPARE
from recloop.methods.dpo4rec.evaluate import FIT_EVALUATOR, FIT_REWARD_MODEL, SCORE
from recloop.methods.dpo4rec.generate import ENCODE, SAMPLE, SAMPLE_UNTUNED
from recloop.methods.dpo4rec.reward import PAIRS_STEP, REWARD_STEP
from recloop.methods.dpo4rec.train import TRAIN

STEPS = (
    PREPARE, SAMPLE_UNTUNED, SAMPLE, SAMPLE_MATCHED, ENCODE, FIT_REWARD_MODEL, REWARD_STEP, PAIRS_STEP, TRAIN,
    FIT_EVALUATOR, SCORE, EVALUATE, REPORT_STEP,
)  # fmt: skip
