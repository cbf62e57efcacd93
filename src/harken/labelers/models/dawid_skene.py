"""Who errs how? Dawid & Skene (1979): each labeler has a confusion matrix, each item a true class; EM finds both.

    model = fit_dawid_skene(ratings_of([("item 1", "ana", "yes"), ("item 1", "bo", "no"), …]))
    model.posterior_UK                       # P(class) of each item
    model.accuracy()["ana"]              # balanced accuracy with its interval and a verdict

P(answers of item u) = sum_k prior_k prod_a confusion[a, k, answer_a]: given the class, labelers err independently. No label is
known to be right: the classes are named by the majority, so a majority of adversaries would be believed.

Shape suffixes: `N` ratings, `U` units, `A` labelers, `K` true classes, `V` answers (the same values as classes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from harken.core.protocols import Estimate
from harken.labelers.ratings import Floats, Ratings

LEAST_PROBABILITY = 1e-10  # a probability of 0 would forbid what was never seen
MOST_PARAMETERS = 1500  # the information matrix is inverted
Verdict = Literal["reliable", "careless", "adversarial", "unclear"]


@dataclass(frozen=True)
class Accuracy:
    """`accuracy` is balanced: the mean over classes of P(right | class), 1/K for anyone who ignores the item.

    `verdict`: "reliable" where the interval lies above 1/K, "adversarial" where it lies below. Where it holds 1/K, "careless"
    if it stays below the middle between 1/K and 1, else "unclear": too few answers to blame anyone.
    """

    accuracy: Estimate
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy.to_json(), "verdict": self.verdict}


@dataclass(frozen=True)
class DawidSkene:
    """A fitted model."""

    ratings: Ratings
    posterior_UK: Floats
    prior_K: Floats
    confusion_AKV: Floats
    """P(labeler answers v | class k)."""
    trace: tuple[float, ...]
    """Log-likelihood (with `smoothing`, plus the log-prior) before each step: it never falls."""
    smoothing: float

    @property
    def log_likelihood(self) -> float:
        """Of the answers, under the final parameters."""
        return float(_expect(_answers(self.ratings), self.prior_K, self.confusion_AKV)[1])

    def labels(self) -> list[str]:
        """[U] names of the likeliest classes."""
        return [self.ratings.names[k] for k in self.posterior_UK.argmax(1)]

    def class_accuracy(self, level: float = 0.9) -> list[list[Estimate]]:
        """[A][K] P(right | class). Intervals: observed information (Louis 1982) of the confusion matrices and the class
        frequencies, on the log-odds scale. `n` is the number of the labeler's items, rounded, believed to be of the class.

        Beyond 1,500 parameters each labeler's information is taken alone, which is a little too confident where few
        people judged each item. Where the answers settle no maximum (two people who always differ) the interval is [0, 1].
        """
        seen_AK = _seen(self)
        error_AK = _error(np.diagonal(_accuracy_covariance(self), axis1=1, axis2=2))
        right_AK = np.diagonal(self.confusion_AKV, axis1=1, axis2=2)
        z = special.ndtri(0.5 + level / 2)
        centre = special.logit(right_AK)
        low, high = special.expit(centre - z * error_AK), special.expit(centre + z * error_AK)
        return [[Estimate(float(right_AK[a, k]), float(low[a, k]), float(high[a, k]), round(float(seen_AK[a, k])), level)
                 for k in range(right_AK.shape[1])] for a in range(len(right_AK))]

    def accuracy(self, level: float = 0.95) -> dict[str, Accuracy]:
        """Each labeler's balanced accuracy, and whether it is better than chance."""
        right_AK = np.diagonal(self.confusion_AKV, axis1=1, axis2=2)
        slope_AK = right_AK * (1 - right_AK) / right_AK.shape[1]  # from log-odds to the mean of the accuracies
        error_A = _error(np.einsum("ak,akl,al->a", slope_AK, _accuracy_covariance(self), slope_AK))
        z, chance = special.ndtri(0.5 + level / 2), 1 / right_AK.shape[1]
        answers = np.bincount(self.ratings.rater, minlength=len(right_AK))
        accuracies: dict[str, Accuracy] = {}
        for a in np.flatnonzero(answers):
            p = float(right_AK[a].mean())
            half = float(z * error_A[a] / (p * (1 - p)))
            low, high = (float(special.expit(special.logit(p) + d)) for d in (-half, half))
            estimate = Estimate(p, low, high, int(answers[a]), level)
            accuracies[self.ratings.raters[a]] = Accuracy(estimate, _verdict(estimate, float(chance)))
        return accuracies


def _error(variance: Floats) -> Floats:
    """Standard errors; infinite where the information is not positive definite and the variance therefore no number."""
    return np.sqrt(np.where(variance >= 0, variance, np.inf))


def fit_dawid_skene(ratings: Ratings, *, smoothing: float = 0.5, max_steps: int = 1000, tolerance: float = 1e-7) -> DawidSkene:
    """EM from majority votes. A labeler's last answer to a unit counts.

    `smoothing` adds that many answers to every cell of every confusion matrix (1/2: Jeffreys' prior, so that few answers do
    not make anyone infallible); 0 is the maximum likelihood of 1979. Stops when the log-likelihood of an answer rises by
    less than `tolerance`. Raises ValueError when there are fewer than two classes or no ratings.
    """
    last = ratings.latest()
    size = len(last.levels)
    if not len(last) or size < 2:
        raise ValueError(f"{len(last)} ratings of {size} classes; at least two classes are needed to tell people apart")
    answers = _answers(last)
    counts_UV = last.counts()
    posterior = (counts_UV + (counts_UV.sum(1, keepdims=True) == 0)) / np.maximum(counts_UV.sum(1, keepdims=True), 1)
    posterior /= posterior.sum(1, keepdims=True)
    prior, confusion = _maximise(answers, posterior, smoothing, last)
    trace: list[float] = []
    for _ in range(max_steps):
        posterior, value = _expect(answers, prior, confusion)
        trace.append(value + smoothing * float(np.log(np.maximum(confusion, LEAST_PROBABILITY)).sum()))
        prior, confusion = _maximise(answers, posterior, smoothing, last)
        if len(trace) > 1 and trace[-1] - trace[-2] < tolerance * len(last):
            break
    return DawidSkene(last, posterior, prior, confusion, tuple(trace), smoothing)


def _verdict(accuracy: Estimate, chance: float) -> Verdict:
    if accuracy.low > chance:
        return "reliable"
    if accuracy.high < chance:
        return "adversarial"
    return "careless" if accuracy.high < (1 + chance) / 2 else "unclear"


def _answers(ratings: Ratings) -> sparse.csr_array:
    """[U, A V] 1 where labeler a answered v: both steps of EM are products with it."""
    size = len(ratings.levels)
    shape = len(ratings.cluster), len(ratings.raters) * size
    return sparse.csr_array((np.ones(len(ratings)), (ratings.unit, ratings.rater * size + ratings.value)), shape=shape)


def _expect(answers: sparse.csr_array, prior_K: Floats, confusion_AKV: Floats) -> tuple[Floats, float]:
    """Posterior [U, K] and the log-likelihood."""
    log_AVK = np.log(np.maximum(confusion_AKV, LEAST_PROBABILITY)).transpose(0, 2, 1)
    joint_UK = answers @ log_AVK.reshape(-1, len(prior_K)) + np.log(np.maximum(prior_K, LEAST_PROBABILITY))
    norm_U = special.logsumexp(joint_UK, axis=1, keepdims=True)
    return np.exp(joint_UK - norm_U), float(norm_U.sum())


def _maximise(answers: sparse.csr_array, posterior_UK: Floats, smoothing: float, ratings: Ratings) -> tuple[Floats, Floats]:
    size, prior = len(ratings.levels), posterior_UK.mean(0)
    counts = (answers.T @ posterior_UK).reshape(-1, size, size).transpose(0, 2, 1) + smoothing
    if ratings.symmetric:  # which side is called first is arbitrary: mirror images share their parameters
        prior, counts = (prior + prior[::-1]) / 2, (counts + counts[:, ::-1, ::-1]) / 2
    counts = np.maximum(counts, LEAST_PROBABILITY)
    return prior, counts / counts.sum(2, keepdims=True)


def _seen(model: DawidSkene) -> Floats:
    """[A, K] how many of the labeler's items are believed to be of each class."""
    seen = np.zeros((len(model.ratings.raters), len(model.prior_K)))
    np.add.at(seen, model.ratings.rater, model.posterior_UK[model.ratings.unit])
    return seen


def _accuracy_covariance(model: DawidSkene) -> Floats:
    """[A, K, K] covariance of the log-odds of being right, from the inverse of the observed information.

    Parameters are log-odds: eta[a, k, v] (softmax over v) and those of the class frequencies. Louis: information of the
    complete data, less the variance of its score given the answers.
    """
    if model.smoothing <= 0:
        raise ValueError("intervals need smoothing above 0: without it a probability may be 0 or 1, with no spread at all")
    p = model.confusion_AKV
    raters, size = p.shape[:2]
    weight_AK = _seen(model) + model.smoothing * size
    of_row = weight_AK[..., None, None] * (np.eye(size) * p[..., None, :] - p[..., :, None] * p[..., None, :])
    complete = np.einsum("akvw,kl->akvlw", of_row, np.eye(size)).reshape(raters, size * size, size * size)
    covariance = (_joint if raters * size * size + size <= MOST_PARAMETERS else _alone)(model, complete)
    rest = p * (1 - np.eye(size))  # log-odds of v = k: eta_k - log sum of exp eta_v over the others
    slope = np.eye(size) - rest / rest.sum(2, keepdims=True)
    return np.asarray(np.einsum("akv,akvlw,alw->akl", slope, covariance.reshape(raters, size, size, size, size), slope))


def _joint(model: DawidSkene, complete: Floats) -> Floats:
    """[A, K V, K V] each labeler's block of the inverse of the whole information."""
    raters, block, _ = complete.shape
    size, q = len(model.prior_K), model.prior_K
    whole = sparse.block_diag([*complete, len(model.posterior_UK) * (np.diag(q) - np.outer(q, q))]).toarray()
    whole -= _missing(model, _scores(model))
    mirror = np.arange(raters * block).reshape(raters, block)[:, ::-1].ravel()
    mirror = np.concatenate([mirror, raters * block + np.arange(size)[::-1]])
    inverse = _inverse(whole, mirror, model.ratings.symmetric)[:-size, :-size].reshape(raters, block, raters, block)
    return np.asarray(inverse[np.arange(raters), :, np.arange(raters)])


def _alone(model: DawidSkene, complete: Floats) -> Floats:
    """The same from each labeler's information by itself."""
    r, size = model.ratings, len(model.prior_K)
    order = np.argsort(r.rater, kind="stable")
    ends = np.searchsorted(r.rater[order], np.arange(len(complete) + 1))
    mirror, blocks = np.arange(size * size)[::-1], []
    for a, information in enumerate(complete):
        rows = order[ends[a]:ends[a + 1]]
        weight_NK = model.posterior_UK[r.unit[rows]]
        score_NKV = np.eye(size)[r.value[rows]][:, None] - model.confusion_AKV[a]
        square = np.einsum("nk,nkv,nkw,kl->kvlw", weight_NK, score_NKV, score_NKV, np.eye(size), optimize=True)
        mean = (weight_NK[:, :, None] * score_NKV).reshape(len(rows), -1)
        missing = square.reshape(information.shape) - mean.T @ mean
        blocks.append(_inverse(information - missing, mirror, r.symmetric))
    return np.array(blocks)


def _inverse(information: Floats, mirror: NDArray[np.intp], symmetric: bool) -> Floats:
    """Covariance; parameters that are mirror images are one, so the information is projected on their mean first."""
    if symmetric:
        information = (information + information[mirror]) / 2
        information = (information + information[:, mirror]) / 2
    return np.asarray(np.linalg.pinv(information, rcond=1e-9, hermitian=True))


def _scores(model: DawidSkene) -> list[sparse.csr_array]:
    """For each class k, [U, A K V + K] gradient of the log-probability of a unit's class and answers if its class were k."""
    r, p = model.ratings, model.confusion_AKV
    raters, size, _ = p.shape
    units, width = len(r.cluster), raters * size * size + size
    row = np.concatenate([np.repeat(r.unit, size), np.repeat(np.arange(units), size)])
    tables = []
    for k in range(size):
        column = ((r.rater * size + k) * size)[:, None] + np.arange(size)
        data = np.concatenate([(np.eye(size)[r.value] - p[r.rater, k]).ravel(), np.tile(np.eye(size)[k] - model.prior_K, units)])
        columns = np.concatenate([column.ravel(), np.tile(width - size + np.arange(size), units)])
        tables.append(sparse.csr_array((data, (row, columns)), shape=(units, width)))
    return tables


def _missing(model: DawidSkene, scores: list[sparse.csr_array]) -> Floats:
    """Variance of the score given the answers, summed over units: what not knowing the classes costs."""
    weights = [sparse.diags_array(model.posterior_UK[:, k]) for k in range(len(scores))]
    mean = sum((w @ s for w, s in zip(weights, scores)), sparse.csr_array(scores[0].shape))
    total = sum((s.T @ w @ s for w, s in zip(weights, scores)), sparse.csr_array((scores[0].shape[1],) * 2))
    return np.asarray((total - mean.T @ mean).toarray())
