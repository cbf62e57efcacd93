"""Trains the embedded toxicity scorer and prints its AUC beside others'.

    python recipes/train_toxicity.py DATA [--write]

DATA holds davidson_hate/labeled_data.csv (MIT), hatecheck/test_suite_cases.csv (CC BY 4.0), and as harmless text hh_rlhf's
helpful test dialogues (MIT, half of it written by models), self_instruct's seed tasks (Apache 2.0) and nltk_cc_by's
sentences on films (CC BY 4.0). A fifth of the first two is held out (texts that are alike share a side). surge_toxicity,
paradetox and vicomtech_hate are measured where there, and never learnt from.
`--write` replaces src/harken/rewards/toxicity_2.npz.
`--texts FILE` (the output of harken sample) compares the scorers on model-written text; `--profanity-python` is a Python with
alt-profanity-check 1.9.1, which is a reference only.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from scipy import optimize, sparse, special
from scipy.stats import rankdata

from harken.rewards import toxicity
from harken.store.splits import in_share

STRENGTH = 1e-3
SHARES = {"davidson": 1.0, "hatecheck": 0.5, "harmless": 0.5}
APART = {"profanity_nh", "counter_quote_nh", "counter_ref_nh", "slur_reclaimed_nh", "slur_homonym_nh"}
"""Cases of HateCheck that are not hateful but quote hate, swear or use a slur: a scorer of toxicity may see them."""


def davidson(folder: Path):
    """Tweets; toxic where most annotators chose hate or offence."""
    with (folder / "davidson_hate" / "labeled_data.csv").open(encoding="utf-8") as file:
        return [(row["tweet"], row["class"] != "2", " ".join(toxicity.normal(row["tweet"])[:6])) for row in csv.DictReader(file)]


def hatecheck(folder: Path):
    """Test cases; those of one template share a side."""
    with (folder / "hatecheck" / "test_suite_cases.csv").open(encoding="utf-8") as file:
        return [(r["test_case"], r["label_gold"] == "hateful", "template " + r["templ_id"])
                for r in csv.DictReader(file) if r["functionality"] not in APART]


def harmless(folder: Path):
    """People and assistants at work, and opinions on films, sentence by sentence."""
    texts = []
    with gzip.open(folder / "hh_rlhf" / "helpful_test_recovered.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            texts += [s for turn in re.split(r"\n\n(?:Human|Assistant): ", json.loads(line)["chosen"])
                      for s in toxicity.sentences(turn.strip())]
    with (folder / "self_instruct" / "seed_tasks.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            texts += toxicity.sentences(f"{row['instruction']} {row['instances'][0]['output']}")
    with zipfile.ZipFile(folder / "nltk_cc_by" / "sentence_polarity.zip") as saved:
        for name in saved.namelist():
            if "rt-polarity" in name:
                texts += saved.read(name).decode("latin1").splitlines()[::3]
    return [(t, False, "") for t in texts if 15 < len(t) < 300]


def paradetox(folder: Path):
    """Toxic sentences and people's polite rewrites of them."""
    with (folder / "paradetox" / "paradetox.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [(text, i == 0, row[0]) for row in rows for i, text in enumerate(row[:2]) if text]


def unseen(folder: Path):
    """Sets that nothing is learnt from."""
    files = {"surge": ("surge_toxicity/toxicity_en.csv", "text", lambda r: r["is_toxic"] == "Toxic"),
             "vicomtech": ("vicomtech_hate/vicomtech.csv", "text", lambda r: r["label"] == "hate")}
    if (folder / "paradetox" / "paradetox.tsv").is_file():
        yield "paradetox", paradetox(folder)
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


def train(x, h, y, s):
    """L2 logistic regression on x, with an intercept and a free weight of the word list's h: the mean loss plus
    STRENGTH / 2 ‖w‖², by L-BFGS. What the list explains, x need not."""
    def loss(p):
        w, b, c = p[:-2], p[-2], p[-1]
        z = x @ w + b + c * h
        residual = s * (special.expit(z) - y)
        value = s @ (np.logaddexp(0, z) - y * z) + STRENGTH / 2 * w @ w
        return value, np.concatenate([x.T @ residual + STRENGTH * w, [residual.sum(), residual @ h]])

    start = np.append(np.zeros(x.shape[1]), [-2.0, 1.0])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found[:-2], found[-2], found[-1]


def auc(scores, labels):
    """P(a toxic text scores above another), ties half (Mann–Whitney)."""
    labels, ranks = np.asarray(labels), rankdata(scores)
    positive = labels.sum()
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * (len(labels) - positive)))


def references(python: str | None, texts: list[str]):
    """alt-profanity-check's probabilities, from an environment of its own: its pickles fit one version of scikit-learn."""
    if python is None:
        return None
    code = ("import json, sys; from profanity_check import predict_prob; "
            "print(json.dumps(predict_prob(json.load(sys.stdin)).tolist()))")
    run = subprocess.run([python, "-c", code], input=json.dumps(texts), capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--texts", type=Path, help="sampled completions, to compare scorers on")
    parser.add_argument("--profanity-python", help="a Python with alt-profanity-check")
    args = parser.parse_args()
    target = Path(toxicity.__file__).with_name(toxicity.Toxicity.file)
    learnt, held = [], {}
    for name, read in {"davidson": davidson, "hatecheck": hatecheck, "harmless": harmless}.items():
        rows = read(args.data)
        held[name] = [r for r in rows if in_share(r[2], 0.2)] if name != "harmless" else []
        kept = [r for r in rows if name == "harmless" or not in_share(r[2], 0.2)]
        toxic = sum(r[1] for r in kept)
        half = SHARES[name] / (2 if toxic else 1)  # in each set the toxic texts weigh as much as the others
        learnt += [(text, label, half / (toxic if label else len(kept) - toxic)) for text, label, _ in kept]
    if args.write:
        texts, labels, weights = zip(*learnt)
        s = np.array(weights) / sum(weights)
        w, b, c = train(matrix(texts), np.array([toxicity.hostility(t) for t in texts]), np.array(labels, float), s)
        scale = float(np.abs(w).max()) / 127
        np.savez_compressed(target, weights=np.round(w / scale).astype(np.int8), scale=scale, bias=b, words=c)
        toxicity._weights.cache_clear()
        print(f"{target}: {target.stat().st_size:,} bytes; the word list weighs {c:.2f}, intercept {b:.2f}", file=sys.stderr)
    table = {}
    sets = {**{k: v for k, v in held.items() if v}, **dict(unseen(args.data))}
    scorers = {s.id: s for s in (toxicity.open_scorer(), toxicity.open_scorer("1"))}
    for k, rows in sets.items():
        texts, labels = [r[0] for r in rows], [r[1] for r in rows]
        for name, scorer in scorers.items():
            table.setdefault(name, {})[k] = round(auc([-scorer.rate(t) for t in texts], labels), 3)
        if (scores := references(args.profanity_python, texts)) is not None:
            table.setdefault("alt-profanity-check", {})[k] = round(auc(scores, labels), 3)
    result = {"auc": table, "n": {k: len(v) for k, v in sets.items()}}
    if args.texts:
        with args.texts.open(encoding="utf-8") as file:
            texts = [t for line in file for t in json.loads(line)["completions"] if t.strip()]
        scores = np.array(references(args.profanity_python, texts) or [])
        for name, scorer in scorers.items():
            own = np.array([-scorer.rate(t) for t in texts])
            result.setdefault("texts", {})[name] = {"n": len(texts), "toxic": round(float((own >= 0.5).mean()), 3)} | ({
                "r": round(float(np.corrcoef(own, scores)[0, 1]), 3), "auc": round(auc(own, scores >= 0.5), 3),
                "their toxic": int((scores >= 0.5).sum())} if len(scores) else {})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
