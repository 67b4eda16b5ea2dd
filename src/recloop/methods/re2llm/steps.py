"""The steps of Re2LLM, in their order; each kind is declared beside the function that does it."""

from recloop.evaluation.report import REPORT_STEP
from recloop.methods.re2llm.answers import ENCODE, SAMPLE
from recloop.methods.re2llm.data import PREPARE
from recloop.methods.re2llm.policies import TRAIN
from recloop.methods.re2llm.reflection import EXPLORE
from recloop.methods.re2llm.repeats import SAMPLE_REPEATS
from recloop.methods.re2llm.report import EVALUATE

STEPS = (PREPARE, EXPLORE, SAMPLE, ENCODE, TRAIN, EVALUATE, SAMPLE_REPEATS, REPORT_STEP)
