"""Commands on models: sample and score."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from harken.cli.options import add_config, make_config
from harken.core.terminal import visible
from harken.launch.settings import SampleSettings, ScoreSettings


def add_commands(commands: Any) -> None:
    """Registers the commands; each sets `handler(args) -> exit status`."""
    p = commands.add_parser("sample", help="write completions of prompts",
                            description="Samples n completions of every prompt.",
                            epilog="harken sample --model runs/rloo --prompts prompts.jsonl --n 4 --out samples.jsonl")
    add_config(p, SampleSettings)
    p.set_defaults(handler=sample)

    p = commands.add_parser("score", help="score the completions of a file of comparisons with a reward",
                            description='Adds "scores" to every row of comparisons; prints accuracy beside null baselines.',
                            epilog="harken score --reward runs/rm --data comparisons.jsonl --out scores.jsonl")
    add_config(p, ScoreSettings)
    p.add_argument("--explain", action="store_true", help='add the "parts" of every score, and print one ranking\'s')
    p.set_defaults(handler=score)


def sample(args: argparse.Namespace) -> int:
    from harken.core.extras import import_extra
    from harken.core.progress import progress
    from harken.core.settings import check_settings
    from harken.launch.models import check_context, parse_model
    from harken.launch.policies import open_sampler
    from harken.store.files import check_out, read_prompts, write_jsonl
    from harken.text.tags import steer
    settings = make_config(SampleSettings, args)
    check_settings(settings)
    out = Path(settings.out)
    check_out(out, settings.prompts)
    loaded = read_prompts(settings.prompts, skip_bad=settings.skip_bad)
    _say(loaded.describe())
    if parse_model(settings.model).kind == "named":
        import_extra("harken.engines.sampler")
    sampler = open_sampler(settings.model, dtype=settings.dtype, template=settings.template)
    steer(sampler, settings.model, settings.mode, settings.tag)
    check_context(sampler, loaded.records, settings.max_tokens)
    template = getattr(getattr(sampler, "engine", None), "template", None)  # a server has none of ours
    for note in template.notes if template else ():
        _say(note)
    with progress("sampling", len(loaded.records)) as advance:
        groups = sampler.sample(loaded.records, settings.n, max_tokens=settings.max_tokens, temperature=settings.temperature,
                                top_p=settings.top_p, seed=settings.seed, advance=advance)
    for note in template.counted() if template else ():
        _say(note)
    source = {name: getattr(settings, name) for name in ("model", "temperature", "top_p", "seed")}
    if getattr(sampler, "guide", None):
        source |= {"mode": settings.mode or "own", "tag": settings.tag}
    if template is not None and template.dated:
        source["template_date"] = str(template.day)
    write_jsonl(out, ({**p.to_json(), "completions": [s.text for s in group], "finished": [s.finished for s in group],
                       "source": source} for p, group in zip(loaded.records, groups)))
    print(f"{out}: {settings.n} completions of {len(groups)} prompts")
    return 0


def score(args: argparse.Namespace) -> int:
    from harken.core.settings import check_settings
    from harken.launch.rewards import open_reward
    from harken.rewards.stored import FIELDS
    from harken.stats.pairs import evaluate_pairs
    from harken.store.files import check_out, read_comparisons, write_jsonl
    settings = make_config(ScoreSettings, args)
    check_settings(settings)
    out = Path(settings.out) if settings.out else None
    if out:
        check_out(out, settings.data)
    own = {} if settings.reward else {"ignore": FIELDS}
    loaded = read_comparisons(settings.data, skip_bad=settings.skip_bad, **own)
    if own:
        loaded = dataclasses.replace(loaded, unread={name: n for name, n in loaded.unread.items() if name not in FIELDS})
    _say(loaded.describe())
    reward = open_reward(settings.reward or f"stored:{settings.data}", dtype=settings.dtype, aggregate=settings.aggregate)
    scores = reward.score([c.prompt for c in loaded.records], [c.options for c in loaded.records])
    rows = [{**c.to_json(), "scores": row} for c, row in zip(loaded.records, scores)]
    if args.explain:
        from harken.cli.rewards import explain
        rows = [{**row, "parts": parts} for row, parts in zip(rows, explain(reward, settings.reward, loaded.records, scores))]
    if out:
        write_jsonl(out, rows)
    print(f"{out or settings.data}: {len(scores)} rankings scored")
    if any(row[i] is not None and row[j] is not None for c, row in zip(loaded.records, scores) for i, j in c.pairs()):
        accuracy = evaluate_pairs(loaded.records, scores)
        print(f"  {accuracy}" + (f"; {accuracy.missing} pairs without a score" if accuracy.missing else ""))
        if accuracy.equal and accuracy.strict:
            print(f"  {accuracy.equal} pairs with equal scores count half there; counted wrong, accuracy {accuracy.strict}")
    elif any(c.has_preference for c in loaded.records):
        why = "the completions are too long for the reward" if settings.reward else "they are missing in the file"
        print(f"  No untied pair has both scores ({why}): there is no accuracy.")
    else:
        print("  Every ranking is a tie: there is no accuracy.")
    return 0


def _say(note: str | None) -> None:
    if note:
        print(visible(note), file=sys.stderr)
