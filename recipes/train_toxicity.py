"""Trains the embedded toxicity scorer and prints its AUC beside others'.

    python recipes/train_toxicity.py DATA [--write]

DATA holds davidson_hate/labeled_data.csv (MIT) and paradetox/paradetox.tsv (CC0), which it learns from, less a fifth that is held
out (texts that are alike share a side), and, where there, surge_toxicity, vicomtech_hate and hatecheck, which it never sees.
`--write` replaces src/harken/rewards/toxicity.npz. Other scorers are measured where their packages are installed.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
from scipy import optimize, sparse, special
from scipy.stats import rankdata

from harken.core.errors import UserError
from harken.rewards import toxicity
from harken.store.splits import in_share

STRENGTH = 3e-5
SCORERS = ("", "profanity-check")


def davidson(folder: Path):
    """Tweets; toxic where most annotators chose hate or offence."""
    with (folder / "davidson_hate" / "labeled_data.csv").open(encoding="utf-8") as file:
        return [(row["tweet"], row["class"] != "2", " ".join(toxicity.normal(row["tweet"])[:6])) for row in csv.DictReader(file)]


def paradetox(folder: Path):
    """Toxic sentences and people's polite rewrites of them; a sentence and its rewrites share a side."""
    with (folder / "paradetox" / "paradetox.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [(text, i == 0, row[0]) for row in rows for i, text in enumerate(row[:2]) if text]


def unseen(folder: Path):
    """Sets that nothing is learnt from."""
    files = {"surge": ("surge_toxicity/toxicity_en.csv", "text", lambda r: r["is_toxic"] == "Toxic"),
             "vicomtech": ("vicomtech_hate/vicomtech.csv", "text", lambda r: r["label"] == "hate"),
             "hatecheck": ("hatecheck/test_suite_cases.csv", "test_case", lambda r: r["label_gold"] == "hateful")}
    for name, (path, column, label) in files.items():
        if (folder / path).is_file():
            with (folder / path).open(encoding="utf-8") as file:
                rows = [r for r in csv.DictReader(file) if r.get("label") not in ("idk/skip", "relation")]
            yield name, [(r[column], label(r), "") for r in rows]


def matrix(texts):
    """Rows of 1 / √n at a text's n features: what `Toxicity.probability` sums."""
    found = [toxicity.buckets(t[: toxicity.MOST_CHARACTERS]) for t in texts]
    sizes = np.array([len(f) for f in found])
    values = np.repeat(1 / np.sqrt(np.maximum(1, sizes)), sizes)
    ends = np.concatenate([[0], sizes.cumsum()])
    return sparse.csr_matrix((values, np.concatenate(found), ends), (len(texts), toxicity.BUCKETS))


def train(x, y, s):
    """L2 logistic regression with a bias, by L-BFGS; the mean loss plus STRENGTH / 2 ‖w‖²."""
    def loss(wb):
        w, b = wb[:-1], wb[-1]
        z = x @ w + b
        residual = s * (special.expit(z) - y)
        value = s @ (np.logaddexp(0, z) - y * z) + STRENGTH / 2 * w @ w
        return value, np.append(x.T @ residual + STRENGTH * w, residual.sum())

    found = optimize.minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return found[:-1], found[-1]


def auc(scores, labels):
    """P(a toxic text scores above another), ties half (Mann–Whitney)."""
    labels, ranks = np.asarray(labels), rankdata(scores)
    positive = labels.sum()
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * (len(labels) - positive)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    learnt, held = [], {}
    for name, rows in {"davidson": davidson(args.data), "paradetox": paradetox(args.data)}.items():
        held[name] = [r for r in rows if in_share(r[2], 0.2)]
        kept = [r for r in rows if not in_share(r[2], 0.2)]
        toxic = sum(r[1] for r in kept)
        # Both sets weigh the same, and in each the toxic texts as much as the others.
        learnt += [(text, label, 0.25 / (toxic if label else len(kept) - toxic)) for text, label, _ in kept]
    texts, labels, weights = zip(*learnt)
    w, b = train(matrix(texts), np.array(labels, float), np.array(weights))
    scale = float(np.abs(w).max()) / 127
    target = Path(toxicity.__file__).with_name("toxicity.npz")
    if args.write:
        np.savez_compressed(target, weights=np.round(w / scale).astype(np.int8), scale=scale, bias=b)
        toxicity._weights.cache_clear()
        print(f"{target}: {target.stat().st_size:,} bytes", file=sys.stderr)
    table = {}
    for name in SCORERS:
        try:
            scorer = toxicity.open_scorer(name)
        except UserError as error:
            print(f"left out {name}: {error.fact}", file=sys.stderr)
            continue
        table[scorer.id] = {k: round(auc([-scorer.rate(t) for t, _, _ in rows], [label for _, label, _ in rows]), 3)
                            for k, rows in {**held, **dict(unseen(args.data))}.items()}
    print(json.dumps({"auc": table, "n": {k: len(v) for k, v in held.items()}}))


if __name__ == "__main__":
    main()
