"""Makes crowdkit_reference.json: what crowd-kit 1.4.2 finds on the examples of its own tests. Not run by the tests.

    python -m venv v && v/bin/pip install crowd-kit==1.4.2 && v/bin/python tests/crowdkit_reference.py

crowd-kit is no dependency: it brings scikit-learn, pyarrow and nltk, and with scikit-learn installed transformers imports it.
The examples (tests/conftest.py of Toloka/crowd-kit, Apache-2.0): a toy of five tasks, and birds with a fraudster who always
says parrot and a careless worker.
"""

import json
from pathlib import Path

TOY = {"w1": "no yes yes yes yes", "w2": "yes yes no yes no", "w3": "- yes no yes no", "w4": "yes no yes yes no",
       "w5": "no no no yes no"}
BIRDS = {  # columns: the tasks whose ids end in eec efb f03 f05 f02 f08 ee8 f07 efd ee4
    "good 1": "goose parrot goose goose parrot parrot - - - -", "good 2": "- parrot goose - - - chicken parrot chicken chicken",
    "good 3": "goose - - goose parrot parrot chicken - - -", "good 4": "goose - goose - - - chicken - - chicken",
    "fraudster": "parrot parrot - parrot - - - parrot parrot parrot",
    "careless": "- parrot - - parrot parrot goose parrot goose -"}


def rows(table):
    return [(f"t{i}", worker, label) for worker, said in table.items() for i, label in enumerate(said.split()) if label != "-"]


def main():
    import pandas
    from crowdkit.aggregation import GLAD, DawidSkene

    found = {}
    for name, table in (("toy", TOY), ("birds", BIRDS)):
        data = pandas.DataFrame(rows(table), columns=["task", "worker", "label"])
        ds = DawidSkene(n_iter=10, tol=-1e9).fit(data)
        glad = GLAD(n_iter=300, tol=-1e9, m_step_max_iter=1000, m_step_tol=1e-9).fit(data)
        found[name] = {
            "rows": rows(table),
            "dawid_skene": {"probas": ds.probas_.T.to_dict(), "priors": ds.priors_.to_dict(),
                            "errors": [[*key, row.to_dict()] for key, row in ds.errors_.iterrows()]},
            "glad": {"probas": glad.probas_.T.to_dict(), "alphas": glad.alphas_.to_dict(),
                     "log_betas": glad.betas_.to_dict()}}
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
