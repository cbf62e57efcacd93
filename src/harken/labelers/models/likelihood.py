"""One likelihood for every feedback: log P(what was said | scores, labeler), with its gradient.

    eta = predictor(scores[a] - scores[b], beta[who], position[who], first)     # log-odds of a over b
    logp, d_eta, d_tie = davidson(eta, log_nu, won)

Everything said is a choice among options, made with some chance of a mistake (Jeon, Milli and Dragan 2020,
2002.04833). So it is told in two steps. The predictor is what a labeler feels: `beta` (rationality; below 0
reads the scale upside down) times the score, plus what pulls beside the point (the place on the screen, the
length, a lenient hand). An outcome family then says how feelings become words:

    comparison with ties       davidson, rao_kupper, half_wins
    ranking with ties          plackett_luce (Davidson–Luce), all_pairs (InstructGPT)
    graded comparison, rating  ordinal (cumulative logit)
    demonstration, edit        chosen (over the alternatives)
    thumb                      thumb
    accept, regenerate, stop   use

Every function is vectorised and returns log-probabilities and their derivatives by what it was given:
finite differences check them, and `harken.objectives.feedback` has the same terms for networks.
Shape suffixes: `N` judgments, `K` options of a ranking, `M` grades.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEAST_PROBABILITY = 1e-150  # keeps logarithms and quotients of vanishing probabilities finite


def log_sigmoid(x: Floats) -> Floats:
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: Floats) -> Floats:
    t = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, t) / (1 + t))


def predictor(score: Floats, beta: Floats | float = 1.0, position: Floats | float = 0.0, first: Floats | Ints | float = 0.0,
              length: Floats | float = 0.0, size: Floats | float = 0.0, leniency: Floats | float = 0.0) -> Floats:
    """What is felt: beta score + position first + length size + leniency; all [N] or scalars.

    For a comparison `score` and `size` are differences (a less b) and `first` is 1 where a was shown first, -1 where b
    was, 0 where nobody knows; for one option they are its own, and `first` is 1 for the option shown first.
    """
    return np.asarray(beta * score + position * first + length * size + leniency, dtype=np.float64)


# --- comparisons -------------------------------------------------------------------------------------


def half_wins(eta: Floats, won: Ints) -> tuple[Floats, Floats]:
    """Bradley–Terry, a tie being half a win each way: P(a) = sigma(eta). Returns log p and d/d eta, [N] each."""
    share = (won + 1) / 2
    t = np.exp(-np.abs(eta))
    return share * eta - np.maximum(eta, 0.0) - np.log1p(t), share - np.where(eta >= 0, 1.0, t) / (1 + t)


def davidson_table(eta: Floats, log_nu: Floats | float) -> Floats:
    """P(a), P(tie), P(b), [N, 3] (Davidson 1970): proportional to e^(eta/2), nu, e^(-eta/2)."""
    t = np.exp(-np.abs(eta) / 2)  # everything over the larger of the two: no overflow
    tie = np.exp(log_nu) * t
    better, worse = np.where(eta >= 0, 1.0, t * t), np.where(eta >= 0, t * t, 1.0)
    return np.asarray(np.stack([better, tie, worse], axis=-1) / (1 + t * t + tie)[..., None])


def davidson(eta: Floats, log_nu: Floats | float, won: Ints) -> tuple[Floats, Floats, Floats]:
    """Comparison with ties of their own. `won` [N] is 1 (a), 0 (tie), -1 (b). Returns log p, d/d eta, d/d log nu, [N]."""
    half = np.abs(eta) / 2
    t = np.exp(-half)
    tie = np.exp(log_nu) * t
    z = 1 + t * t + tie
    logp = np.where(won == 0, log_nu, won * eta / 2) - half - np.log(z)
    gap = np.sign(eta) * (1 - t * t) / z  # P(a) - P(b)
    return logp, (won - gap) / 2, (won == 0) - tie / z


def rao_kupper(eta: Floats, log_theta: Floats | float, won: Ints) -> tuple[Floats, Floats, Floats]:
    """Comparison with ties (Rao and Kupper 1967): P(a) = sigma(eta - ln theta), P(tie) = (theta^2 - 1) P(a) P(b).

    Differences smaller than a threshold go unseen: ln theta > 0. Returns log p, d/d eta, d/d ln theta, [N].
    """
    t = np.broadcast_to(np.asarray(log_theta, dtype=np.float64), eta.shape)
    a, b = log_sigmoid(eta - t), log_sigmoid(-eta - t)
    not_a, not_b = sigmoid(t - eta), sigmoid(t + eta)
    logp = np.where(won == 0, np.log(np.expm1(2 * t)) + a + b, np.where(won > 0, a, b))
    d_eta = np.where(won == 0, not_a - not_b, np.where(won > 0, not_a, -not_b))
    d_theta = np.where(won == 0, 2 / -np.expm1(-2 * t) - not_a - not_b, np.where(won > 0, -not_a, -not_b))
    return logp, d_eta, d_theta


def crowd_odds(d: Floats, logit_eta: Floats) -> tuple[Floats, Floats, Floats]:
    """Crowd-BT (Chen et al. 2013, eq. 5) as log-odds: P(a) = eta sigma(d) + (1 - eta) sigma(-d).

    `logit_eta` [N] is the labeler's ln eta / (1 - eta): eta 1 is perfect, 1/2 a coin, 0 malicious. Returns the
    log-odds of a, their derivative by d and by logit eta, [N] each.
    """
    right, wrong = sigmoid(logit_eta), sigmoid(-logit_eta)
    up, down = sigmoid(d), sigmoid(-d)
    a, b = right * up + wrong * down + LEAST_PROBABILITY, right * down + wrong * up + LEAST_PROBABILITY
    return np.log(a / b), (right - wrong) * up * down / (a * b), (up - down) * right * wrong / (a * b)


# --- rankings ----------------------------------------------------------------------------------------


def all_pairs(u: Floats, log_nu: float, ranks: Ints) -> tuple[Floats, Floats, Floats]:
    """A ranking as its C(K, 2) comparisons with ties, their mean (2203.02155, eq. 1, with Davidson's ties; P31).

    u [N, K] felt values, `ranks` [N, K], 1 the best. Returns log p [N], d/d u [N, K], d/d log nu [N].
    """
    i, j = np.triu_indices(u.shape[1], 1)
    won = np.sign(ranks[:, j] - ranks[:, i])
    logp, d_eta, d_nu = (x.reshape(won.shape) for x in davidson((u[:, i] - u[:, j]).ravel(), log_nu, won.ravel()))
    grad = np.zeros_like(u)
    for pair, (a, b) in enumerate(zip(i, j)):
        grad[:, a] += d_eta[:, pair]
        grad[:, b] -= d_eta[:, pair]
    return logp.mean(1), grad / len(i), d_nu.mean(1)


@cache
def subsets(k: int) -> tuple[Floats, Ints]:
    """All non-empty sets of k options: shares [S, k] (1/size inside, 0 outside) and sizes [S]."""
    inside = ((np.arange(1, 2**k)[:, None] >> np.arange(k)) & 1).astype(np.float64)
    sizes = inside.sum(1).astype(np.int64)
    return inside / sizes[:, None], sizes


def plackett_luce(u: Floats, log_nu: float | None, ranks: Ints) -> tuple[Floats, Floats, Floats]:
    """A ranking, tied groups included, best group first: the Davidson–Luce model (Firth, Kosmidis and Turner 2019).

    At each stage a set T of those left is put on top, P(T) proportional to nu^(|T| - 1) exp(mean of u in T). With
    `log_nu` None nothing ties and it is Plackett–Luce; with K = 2 it is Davidson. It sums over 2^K sets, so K to 12
    with ties. u [N, K] felt values, `ranks` [N, K], 1 the best. Returns log p [N], d/d u [N, K], d/d log nu [N].
    Raises ValueError for tied ranks without `log_nu`, and for too many options.
    """
    n, k = u.shape
    if log_nu is not None and k > 12:
        raise ValueError(f"a ranking of {k} with ties has 2^{k} sets to sum over; use all_pairs")
    shares, sizes = subsets(k) if log_nu is not None else (np.eye(k), np.ones(k, dtype=np.int64))
    values = u @ shares.T + (log_nu or 0.0) * (sizes - 1)
    logp, grad, d_nu = np.zeros(n), np.zeros_like(u), np.zeros(n)
    for rank in np.unique(ranks):
        top, left = ranks == rank, ranks >= rank
        live = top.any(1) & (left.sum(1) > 1)
        size = top[live].sum(1)
        if log_nu is None and (size > 1).any():
            raise ValueError("a ranking has ties, and a Plackett–Luce without log_nu has none")
        gone = (~left[live]).astype(np.float64)
        felt = np.where(gone @ (shares > 0).T > 0, -np.inf, values[live])  # sets of those still left only
        norm = np.logaddexp.reduce(felt, axis=1)
        p = np.exp(felt - norm[:, None])
        logp[live] += (u[live] * top[live]).sum(1) / size + (log_nu or 0.0) * (size - 1) - norm
        grad[live] += top[live] / size[:, None] - p @ shares
        d_nu[live] += (size - 1) - p @ (sizes - 1)
    return logp, grad, d_nu


# --- grades, choices, thumbs, use --------------------------------------------------------------------


def ordinal(eta: Floats, cuts: Floats, grade: Ints) -> tuple[Floats, Floats, Floats]:
    """A grade 0 … M-1 (cumulative logit, McCullagh 1980): P(grade <= m) = sigma(cuts[m] - eta), cuts [M-1] rising.

    Ratings: eta = beta score + leniency. Graded comparisons ("much better" … "much worse"): eta of the difference and
    cuts symmetric about 0, the highest grade for a. Returns log p [N], d/d eta [N], d/d cuts [N, M-1].
    """
    if not (np.diff(cuts) > 0).all():
        raise ValueError(f"the cuts between grades must rise, found {cuts.tolist()}")
    edges = np.concatenate([[-np.inf], cuts, [np.inf]])
    low, high = edges[grade] - eta, edges[grade + 1] - eta
    # sigma(high) - sigma(low) = sigma(high) sigma(-low) (1 - e^(low - high)): no cancellation far out.
    logp = log_sigmoid(high) + log_sigmoid(-low) + np.log(-np.expm1(low - high))
    d_low = -np.exp(log_sigmoid(low) + log_sigmoid(-low) - logp)
    d_high = np.exp(log_sigmoid(high) + log_sigmoid(-high) - logp)
    grad = np.zeros((len(eta), len(edges)))
    rows = np.arange(len(eta))
    grad[rows, grade] += d_low
    grad[rows, grade + 1] += d_high
    return logp, sigmoid(low) - sigmoid(-high), grad[:, 1:-1]


def chosen(u: Floats, choice: Ints) -> tuple[Floats, Floats]:
    """One of K: P(c) = exp u_c / sum exp u (Luce 1959). A demonstration or an edit is a choice over what could have been
    written instead: the model's own samples, or the text before the edit. u [N, K] (-inf: not on offer), `choice` [N].

    Returns log p [N], d/d u [N, K].
    """
    table = u - np.logaddexp.reduce(u, axis=1)[:, None]
    grad = -np.exp(table)
    rows = np.arange(len(u))
    grad[rows, choice] += 1
    return table[rows, choice], grad


def thumb(eta: Floats, up: Ints) -> tuple[Floats, Floats]:
    """Thumb up (1) or down (0) against the labeler's own bar: P(up) = sigma(eta), eta = beta score + leniency.

    Returns log p and d/d eta, [N] each.
    """
    sign = 2.0 * up - 1
    return log_sigmoid(sign * eta), sign * sigmoid(-sign * eta)


USE = ("accept", "regenerate", "stop")


def use(eta: Floats, outside: Sequence[float], what: Ints) -> tuple[Floats, Floats, Floats]:
    """What someone did with an answer: accept it (0), regenerate (1) or stop (2), a choice among three.

    Accepting is worth eta = beta score + leniency, another try `outside[0]`, leaving `outside[1]` (what else there is to
    do, learnt). It is weak: a person regenerates out of curiosity as well, which a low beta for this kind of feedback
    says. Returns log p [N], d/d eta [N], d/d outside [N, 2].
    """
    rest = np.broadcast_to(np.asarray(outside, dtype=np.float64), (len(eta), 2))
    logp, grad = chosen(np.concatenate([eta[:, None], rest], axis=1), what)
    return logp, grad[:, 0], grad[:, 1:]
