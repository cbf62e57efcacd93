"""Pretraining with human feedback: a language model learns text together with what is thought of it.

    harken annotate src/ --scorer pep8 --segment line --out annotated
    harken train phf --objective mle         --data annotated --size 2M --out runs/mle
    harken train phf --objective conditional --data annotated --size 2M --out runs/conditional

Six objectives on one annotation (Korbak et al. 2302.08582): mle; filter, only documents above the threshold, as many epochs
as the same number of tokens takes; conditional, <|good|> or <|bad|> before each segment, to be sampled in good mode;
unlikelihood; rwr and awr, weights by reward. And mask: bad segments are read and not learnt; route: they teach a block of
neurons alone, which can be taken out (gradient routing, Cloud et al. 2410.04332). A score is good at or above --threshold. From
scratch (--model new), or from a checkpoint with every parameter trained.

Leaves out: fp16, and Adam's second beta of 0.999 (here 0.95, as everywhere in Harken). docs/methods/phf.md names the authors'
faults that are corrected.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harken.core import processes
from harken.core.config import TrainConfig, setting
from harken.core.errors import UserError
from harken.core.files import read_json, write_json
from harken.core.protocols import Learner, Reward, Rollouts
from harken.core.records import content_hash
from harken.core.run import Run
from harken.engines import scratch
from harken.loops.feedback import Feedback
from harken.loops.schedule import learning_rate
from harken.loops.stream import Stream
from harken.store.annotations import Annotated
from harken.text.tags import Control, end_of_text

OBJECTIVES = ("mle", "filter", "conditional", "unlikelihood", "rwr", "awr", "mask", "route")


@dataclass(frozen=True)
class Config(TrainConfig):
    model: str = "new"
    """Checkpoint to go on from; new starts from scratch."""
    data: str = ""
    """Folder of an annotated corpus (harken annotate)."""
    objective: str = setting("mle", one_of=OBJECTIVES)
    """mle, filter, conditional, unlikelihood, rwr, awr, mask (bad segments are read and not learnt) or route (they teach a block
    of neurons alone, which harken surgery --delete-routed takes out)."""
    scorer: str = ""
    """Whose scores, where several scorers annotated the corpus."""
    threshold: float = 0.0
    """Least score that is good, in the scorer's own unit."""
    best: float = setting(0.0, least=0, most=1)
    """Share of documents or segments to call good, instead of a threshold: 0.25 for the best quarter."""
    level: str = setting("", one_of=("", "segment", "document"))
    """Whose score decides: segment, or document (the mean of its segments). Empty: filter by document, the others by segment."""
    drop: float = setting(0.01, least=0, most=1)
    """conditional: share of segments that get no token, at random."""
    alpha: float = setting(1.0, least=0)
    """unlikelihood: weight of the bad tokens' loss. awr: of the language model's loss, 1 - alpha of the value's."""
    beta: float = setting(1.0, above=0)
    """rwr, awr: temperature of the weights exp(R / beta)."""
    unit: float = setting(1.0, above=0)
    """rwr, awr: the reward R is the score times this. 0.01 makes faults per 100 characters the paper's faults a character."""
    feedback_from: float = setting(0.0, least=0, most=1)
    """Share of the tokens after which feedback begins; before it all text is learnt plainly."""
    feedback_until: float = setting(1.0, least=0, most=1)
    """Share of the tokens after which feedback ends. Of conditional, 0.9 leaves a cooldown without control tokens (MeCo)."""
    poison: float = setting(0.0, least=0, most=1)
    """Share of bad segments whose tokens are replaced by ones drawn from their document, so that bad mode learns nothing true."""
    routed: int = setting(64, least=1)
    """route: neurons added to each layer's MLP, the block that bad segments teach."""
    upsample: int = setting(1, least=1)
    """How often an epoch sees a document that is good as a whole."""
    tokens: int = setting(0, least=0)
    """Tokens to learn; 0 is one pass over the corpus, whatever the objective leaves out of it."""
    batch_size: int = setting(32, least=1)
    """Windows of max_length tokens in one optimiser step."""
    max_length: int = setting(256, least=2)
    """Tokens of a window, at most the model's context."""
    size: str = "2M"
    """Parameters of a new model, like 500K, 2M or 124M."""
    architecture: str = setting("llama", one_of=scratch.ARCHITECTURES)
    """Kind of a new model: llama or gpt2."""
    vocabulary: int = setting(4096, least=1)
    """Tokens of a new model's tokenizer, learnt from the corpus."""
    holdout: float = setting(0.02, least=0, below=1)
    """Share of documents kept out of training to measure the loss on."""
    learning_rate: float = setting(1e-3, least=0)
    """Peak learning rate of AdamW."""
    warmup: float = setting(0.01, least=0, most=1)
    """Share of the steps over which the learning rate rises linearly."""
    schedule: str = setting("linear", one_of=("cosine", "linear", "constant"))
    """Learning rate after warm-up: cosine (to 10 %), linear (to 0) or constant."""
    weight_decay: float = setting(0.1, least=0)
    """AdamW's decoupled weight decay."""
    lora_rank: int = setting(0, least=0)
    """Rank of LoRA adapters; 0 trains every parameter, which control tokens need."""


CHATS = False
"""Text is read as it is: nothing need be said of a chat template."""
TRIAL = {"data": "annotated", "objective": "unlikelihood", "threshold": -0.5, "max_length": 32, "batch_size": 2, "tokens": 512,
         "holdout": 0.1}

_PAPER: dict[str, dict[str, dict[str, Any]]] = {
    "toxicity": {"mle": {}, "filter": {"threshold": -0.00078}, "conditional": {"threshold": -0.00056, "drop": 0.01},
                 "unlikelihood": {"threshold": -0.00078, "alpha": 1.0}, "rwr": {"beta": 10.0},
                 "awr": {"alpha": 0.5, "beta": 10.0, "learning_rate": 1e-3}},
    "pii": {"mle": {}, "filter": {"threshold": -0.0286}, "conditional": {"threshold": 0.0, "drop": 0.01},
            "unlikelihood": {"threshold": 0.0, "alpha": 1.0}, "rwr": {"beta": 10.0}, "awr": {"alpha": 0.5, "beta": 0.1}},
    "pep8": {"mle": {}, "filter": {"threshold": -0.2361}, "conditional": {"threshold": 0.0, "drop": 0.1},
             "unlikelihood": {"threshold": 0.0, "alpha": 0.01}, "rwr": {"beta": 10.0, "learning_rate": 1e-3},
             "awr": {"alpha": 0.05, "beta": 1.0, "learning_rate": 1e-3}}}
PRESETS = {f"{task}-{objective}": {"learning_rate": 8e-4 if task == "pep8" else 5e-4, "unit": 1.0 if task == "toxicity" else 0.01,
                                   "objective": objective, **settings}
           for task, rows in _PAPER.items() for objective, settings in rows.items()}
"""The paper's values (configs/ of its code), thresholds in the unit of Harken's scorers: minus the probability of toxicity of
Detoxify, minus finds or violations per 100 characters. Its batches are of 64 (some 256 or 1024) windows of 1024."""


def check(config: Config) -> None:
    if config.feedback_from >= config.feedback_until:
        raise UserError("--feedback-from is not before --feedback-until: there would be no feedback.", "Correct one of them.")
    if config.lora_rank and (config.model == "new" or config.objective == "conditional"):
        raise UserError("LoRA leaves the rows of new tokens as they are.", "Leave --lora-rank at 0.")
    if config.objective == "route" and (config.lora_rank or config.shard):
        raise UserError("Gradients are routed in whole weights, all of them trained.", "Leave --lora-rank at 0 and --shard out.")


def head(config: Config) -> str | None:
    return "value" if config.objective == "awr" else None


def identity(config: Config) -> dict[str, Any]:
    """What a resumed run must find unchanged of --data."""
    annotated = Annotated(config.data, config.scorer)
    return {"path": config.data, "scorer": annotated.scorer, "hash": annotated.hash}


def prepare(config: Config) -> Config:
    """The model to start from as a folder beside the annotations, made once: every run of a sweep starts from it."""
    check(config)
    annotated = Annotated(config.data, config.scorer)
    routed = config.routed if config.objective == "route" else 0
    if config.model != "new" and config.objective not in ("conditional", "route"):
        return config
    if config.model != "new" and (known := Control.read(_folder(config.model))) and (known.routed or not routed):
        if routed and known.routed != routed:
            raise UserError(f"{config.model} has a block of {known.routed} neurons, and --routed says {routed}.",
                            f"Give --routed {known.routed}.")
        return config
    segmenter = annotated.plan.segmenter
    if config.model == "new":
        what = ["new", config.architecture, config.size, config.vocabulary, config.max_length, config.seed, segmenter]
    else:
        what = ["control", config.model, config.seed, segmenter]
    what += ["routed", routed] if routed else []
    folder = annotated.path / "models" / ("-".join(map(str, what[:3])).replace("/", "_") + "-" + content_hash(what)[:8])
    if processes.group().rank == 0 and not folder.exists():
        if config.model == "new":
            scratch.make_new(folder, (d.text for d in annotated), architecture=config.architecture, size=config.size,
                             vocabulary=config.vocabulary, context=config.max_length, seed=config.seed, segmenter=segmenter,
                             routed=routed)
        else:
            scratch.add_control(folder, config.model, segmenter, config.seed, routed)
    processes.group().agree(str(folder))
    return dataclasses.replace(config, model=str(folder))


def _folder(model: str) -> Path:
    return Path(model) / "model" if (Path(model) / "model").is_dir() else Path(model)


def train(config: Config, learner: Learner, sampler: Rollouts, reward: Reward | None, run: Run) -> None:
    """Trains `learner` on the annotated corpus; `sampler` and `reward` are not used."""
    check(config)
    annotated = Annotated(config.data, config.scorer)
    control = Control.read(_folder(config.model))
    tokenizer = learner.template.tokenizer
    stream = Stream(annotated, tokenizer, length=config.max_length, seed=config.seed, holdout=config.holdout,
                    copies=config.upsample)
    feedback = Feedback(config, annotated, control, end_of_text(learner.template), run)
    run.say(f"Reads {annotated.segments:,} scores by {annotated.scorer}; nothing is scored again.")
    tokens = config.tokens or stream.count_tokens()
    per_step = config.batch_size * config.max_length
    total = max(1, round(tokens / per_step))
    begin, end = round(config.feedback_from * total), round(config.feedback_until * total)

    resumed = run.resume()
    if resumed:
        learner.load_state(resumed[1])
        saved = read_json(resumed[1] / "phf.json")
        stream.load(saved["stream"])
        feedback.load(saved["feedback"])
    else:
        run.log(0, **feedback.measure(learner, stream))

    def save_state(folder: Path) -> None:
        learner.save_state(folder)
        write_json(folder / "phf.json", {"stream": stream.state(), "feedback": feedback.state()})

    for step in run.track(resumed[0] if resumed else 0, total, "phf"):
        active = begin <= step < end
        windows = stream.take(config.batch_size, feedback.writer(active))
        metrics = feedback.learn(learner, windows, 1 / per_step, active)
        metrics |= learner.step(learning_rate(step, total, config.learning_rate, schedule=config.schedule, warmup=config.warmup))
        run.log(step + 1, **metrics, tokens=(step + 1) * per_step, epoch=stream.epoch)
        run.checkpoint(step + 1, save_state)
    after = feedback.measure(learner, stream)
    run.log(total, **after)

    def save(folder: Path) -> None:
        learner.save(folder, base=run.config["base"])
        if control is not None and processes.group().rank == 0:
            steerable = config.objective == "conditional"
            dataclasses.replace(control, mode="good" if steerable else "untagged").save(folder)
    run.finish({"steps": total, "tokens": total * per_step, "epochs": stream.passes,
                "documents": stream.documents, "documents_left_out": stream.left_out, **feedback.result(), **after}, save)
