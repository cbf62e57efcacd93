"""No null model leads the win rate. (test_evals_honest.py and test_evals_harmless.py hold the same of truthful and informative,
and of harmless and over-refusal together.)"""

import json
from importlib.resources import files

from harken.core.protocols import Sample
from harken.evals import win_rate
from harken.launch.evaluate import evaluate
from harken.text.refusal import NO_COMMENT


def rows(name):
    return [json.loads(line) for line in files("harken.sandbox").joinpath(name).read_text().splitlines()]


WRITTEN = {r["prompt"]: r["completion"] for r in rows("demonstrations.jsonl") if isinstance(r["prompt"], str)}
PROMPTS = [r for r in rows("prompts.jsonl") if r["prompt"] in WRITTEN][:60]  # with what the known truth reads
LONGEST, SHORTEST = (pick(WRITTEN.values(), key=len) for pick in (max, min))


class Answers:
    engine = None

    def __init__(self, of):
        self.of = of

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        return [[Sample((), self.of(p.text), (), (), True)] * n for p in prompts]


def test_no_null_answer_leads_the_win_rate(tmp_path):
    """Against the demonstrations people wrote, by the sandbox's known truth."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(json.dumps(r) + "\n" for r in PROMPTS))
    nulls = {"constant": win_rate.CONSTANT, "no comment": NO_COMMENT, "empty": "", "longest": LONGEST, "shortest": SHORTEST}
    for name, null in nulls.items():
        config = win_rate.Config(model="my.null", against="my.people", judge="gold", prompts=str(prompts), n=1,
                                 out=str(tmp_path / name))
        given = {"model": Answers(lambda t, null=null: null), "against": Answers(WRITTEN.get)}
        result = evaluate("win_rate", win_rate, config, quiet=True, given=given).result
        assert result["value"]["high"] < 0.5, (name, result["value"])
