"""What each objective makes of scores, by hand: which documents, which control tokens, which weights, and when."""

import math
import random
from types import SimpleNamespace

import pytest
import torch

from harken.core.protocols import Outputs
from harken.loops.feedback import Feedback
from harken.loops.stream import Tokens
from harken.methods.phf import Config
from harken.store.annotations import Scored
from harken.text.tags import Control

END, GOOD, BAD = 0, 90, 91
NAN = math.nan
IDS = [[11, 12], [21, 22, 23], [31]]
MIXED = Scored("d0", "text", [2, 5, 6], [0.5, -1.0, None])
FINE = Scored("d1", "text", [2, 5, 6], [0.5, 0.0, 0.25])


def feedback(objective="mle", **settings):
    config = Config(objective=objective, **settings)
    annotated = SimpleNamespace(sample=lambda level: torch.tensor([-1.0, 0.0]).numpy())
    return Feedback(config, annotated, Control(GOOD, BAD, "sentence"), END, SimpleNamespace(note=lambda text: None))


def written(made, document=MIXED, active=True, copy=0):
    return made.writer(active)(document, IDS, copy, random.Random(0))


def ids(tokens):
    return None if tokens is None else tokens.ids.tolist()


PLAIN = [11, 12, 21, 22, 23, 31, END]


@pytest.mark.parametrize(("objective", "settings", "mixed", "fine"), [
    ("mle", {}, PLAIN, PLAIN),
    ("unlikelihood", {}, PLAIN, PLAIN),
    ("filter", {}, None, PLAIN),  # the mean of .5 and -1 is below 0
    ("filter", {"threshold": -0.25}, PLAIN, PLAIN),  # and is -.25: at the threshold is good
    ("filter", {"level": "segment"}, [11, 12, END], PLAIN),
    ("conditional", {"drop": 0.0}, [GOOD, 11, 12, BAD, 21, 22, 23, 31, END], [GOOD, 11, 12, GOOD, 21, 22, 23, GOOD, 31, END]),
    ("conditional", {"drop": 0.0, "level": "document"}, [BAD, 11, 12, BAD, 21, 22, 23, BAD, 31, END],
     [GOOD, 11, 12, GOOD, 21, 22, 23, GOOD, 31, END]),
    ("conditional", {"drop": 1.0}, PLAIN, PLAIN)])
def test_what_is_read_of_a_document(objective, settings, mixed, fine):
    made = feedback(objective, **settings)
    assert ids(written(made)) == mixed and ids(written(made, FINE)) == fine


@pytest.mark.parametrize("objective", ["filter", "conditional"])
def test_before_and_after_feedback_text_is_read_plainly(objective):
    made = feedback(objective, poison=1.0, drop=0.0)
    assert ids(written(made, active=False)) == PLAIN


def test_copies_are_of_good_documents_and_while_feedback_lasts():
    made = feedback("mle", upsample=2)
    assert [ids(written(made, d, active, copy=1)) for d in (MIXED, FINE) for active in (True, False)] == [None, None, PLAIN, None]


def test_every_token_has_its_segments_score_and_the_end_the_last_ones():
    made = written(feedback("conditional", drop=0.0), FINE)
    assert made.scores.tolist() == [0.5] * 3 + [0.0] * 4 + [0.25] * 3
    assert made.tags.tolist() == [i in (GOOD, BAD) for i in made.ids]


def test_poison_changes_what_bad_segments_say_and_no_more():
    made = feedback(poison=1.0)
    document = Scored("d", "text", [2, 9], [0.5, -1.0])
    parts = [[11, 12], [21, 22, 23, 24, 25, 26, 27]]
    tokens = made.writer(True)(document, parts, 0, random.Random(0)).ids.tolist()
    assert tokens[:2] == [11, 12] and tokens[-3:] == [26, 27, END] and len(tokens) == 10
    assert tokens[2:7] != parts[1][:5] and set(tokens[2:7]) <= {i for p in parts for i in p}
    assert made.counts["poisoned"] == 1


SCORES = [9.0, 0.0, -0.5, NAN]
"""Of a window's four tokens; the first is given, three are predicted."""
LOGPS = [-0.3, -1.2, -2.0]
VALUES = [0.4, -0.7, 0.1]


def loss_of(made, active=True, weight=0.5):
    """The loss of one window, through the datum as the engine passes it on."""
    datum = made.datum(Tokens.of([1, 2, 3, 4], SCORES, [False] * 4), weight, active)
    assert datum.tree.prompt == (1,) and datum.tree.completions == ((2, 3, 4),)
    logps, values = torch.tensor(LOGPS, dtype=torch.float64), torch.tensor(VALUES, dtype=torch.float64)
    out = Outputs(logps, torch.zeros(3), None, values if made.config.objective == "awr" else None, None, [3], [1])
    inputs = {k: torch.tensor(v, dtype=torch.float64) for k, v in datum.inputs.items()}
    loss, metrics = made.objective(active)(out, inputs)
    assert "nll" in metrics
    return float(loss)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_each_objectives_loss_of_a_window_by_hand():
    """Scores 0 (good), -.5 (bad) and none, weight 1/2 a token, R = 2 score, alpha .3, beta .7; V = -sigmoid(head)."""
    w, settings = 0.5, {"alpha": 0.3, "beta": 0.7, "unit": 2.0}
    plain = w * (0.3 + 1.2 + 2.0)
    assert loss_of(feedback("mle")) == pytest.approx(plain)
    assert loss_of(feedback("conditional")) == pytest.approx(plain)
    assert loss_of(feedback("mask")) == pytest.approx(w * 0.3)
    assert loss_of(feedback("unlikelihood", **settings)) == pytest.approx(w * (0.3 - 0.3 * math.log(1 - math.exp(-1.2))))
    assert loss_of(feedback("rwr", **settings)) == pytest.approx(w * (0.3 + math.exp(-1 / 0.7) * 1.2))
    v = [-sigmoid(x) for x in VALUES[:2]]
    weighted = math.exp((0 - v[0]) / 0.7) * 0.3 + math.exp((-1 - v[1]) / 0.7) * 1.2
    error = (0 - v[0]) ** 2 + (-1 - v[1]) ** 2
    assert loss_of(feedback("awr", **settings)) == pytest.approx(w * (0.3 * weighted + 0.7 * error))


@pytest.mark.parametrize("objective", ["unlikelihood", "mask", "rwr", "awr"])
def test_without_feedback_every_loss_is_the_likelihoods(objective):
    made = feedback(objective, alpha=0.3, beta=0.7)
    assert loss_of(made, active=False) == pytest.approx(0.5 * (0.3 + 1.2 + 2.0))
    assert loss_of(made) != pytest.approx(0.5 * (0.3 + 1.2 + 2.0), rel=0.05)


def test_the_held_out_loss_is_of_text_after_each_modes_own_tags():
    """A learner that gives each token minus its id as its log-prob shows which tokens stood there, and which were counted."""
    made, seen = feedback("conditional", max_length=20), []

    def logprobs(trees):
        seen.extend((t.prompt + t.completions[0]) for t in trees)
        return [torch.tensor([[-float(i) for i in t.completions[0]]]) for t in trees]
    stream = SimpleNamespace(held_out=lambda count: [(MIXED, IDS)])
    result = made.measure(SimpleNamespace(logprobs=logprobs), stream)
    assert seen == [(END, 11, 12, 21, 22, 23, 31), (END, GOOD, 11, 12, GOOD, 21, 22, 23, GOOD, 31),
                    (END, GOOD, 11, 12, BAD, 21, 22, 23, 31)]
    assert set(result.values()) == {(11 + 12 + 21 + 22 + 23 + 31) / 6} and len(result) == 3
