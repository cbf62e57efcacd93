"""What sampling and scoring take: the options of the commands, and the arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass

from harken.core.config import MAX_TOKENS, setting
from harken.core.seeds import MOST_SEED


@dataclass(frozen=True)
class SampleSettings:
    model: str = setting("", names="model", required=True)
    """A run, smollm2, a folder, a .gguf file, a hub id, a server (http://host/v1#name) or your own (my_lab.engine:open)."""
    prompts: str = setting("", names="file", required=True)
    """JSON Lines file of prompts."""
    template: str = ""
    """Chat template in place of the model's own: chatml, vicuna, … or a file."""
    out: str = setting("", required=True)
    """File to write: a prompt a line with its completions."""
    n: int = setting(1, least=1)
    """Completions a prompt."""
    max_tokens: int = setting(MAX_TOKENS, least=1)
    """Longest completion in tokens."""
    temperature: float = setting(1.0, least=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = setting(1.0, above=0, most=1)
    """Nucleus sampling mass; 1 is off."""
    mode: str = setting("", one_of=("", "good", "bad", "untagged"))
    """Of a model with control tokens: good, bad or untagged; empty is its own."""
    tag: str = setting("each", one_of=("each", "once"))
    """Put the mode's token before each segment, or once at the start."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of sampling."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""
    skip_bad: bool = False
    """Skip malformed lines and count them."""


@dataclass(frozen=True)
class ScoreSettings:
    reward: str = setting("", names="reward")
    """A reward run, several with commas, a scorer such as toxicity, your own function (my_lab.score:fn), or gold; empty takes the
    scores that stand in the file (docs/rewards/stored.md)."""
    data: str = setting("", names="file", required=True)
    """JSON Lines file of comparisons."""
    out: str = ""
    """File to write; empty only prints."""
    aggregate: str = ""
    """Of a reward model with groups: mean, group:NAME, worst or quantile:Q; empty is its shared score."""
    dtype: str = setting("float32", one_of=("float32", "bfloat16", "auto"))
    """Precision: float32, bfloat16 or auto."""
    skip_bad: bool = False
    """Skip malformed lines and count them."""


@dataclass(frozen=True)
class SurgerySettings:
    model: str = setting("", names="model", required=True)
    """The run or folder to cut: a model with control tokens."""
    delete_bad: bool = False
    """Delete the bad token: its rows of both embeddings, and its word."""
    delete_routed: bool = False
    """Delete the neurons that alone learnt bad segments (harken train phf --objective route)."""
    project: str = setting("", one_of=("", "contrast", "bad", "activations"))
    """Project out contrast (e_good - e_bad), bad (e_bad), or activations (bad less good, of the documents, after --layer)."""
    layer: int = setting(0, least=0)
    """Block after which activations are compared."""
    layers: str = ""
    """Blocks to project out of, like 2,3; empty is everywhere, the embeddings too."""
    subtract: float = 0.0
    """Subtract so many times e_bad from every text token's embedding."""
    reward: str = setting("", names="reward", required=True)
    """Who scores samples."""
    data: str = setting("", names="file", required=True)
    """Documents to measure capability on: text with blank lines between, or JSON Lines with "text"."""
    reference: str = setting("", names="model")
    """Who reads samples for their fluency; empty is the model as it was, in its own mode (with --delete-routed, as it is cut)."""
    out: str = setting("", required=True)
    """Run directory to write."""
    force: bool = False
    """Write the model even where bits rise by more than 10 %."""
    samples: int = setting(256, least=2)
    """Samples in each mode."""
    max_tokens: int = setting(64, least=1)
    """Longest sample in tokens."""
    temperature: float = setting(1.0, least=0)
    """Sampling temperature."""
    top_p: float = setting(1.0, above=0, most=1)
    """Nucleus sampling mass; 1 is off."""
    seed: int = setting(0, least=0, most=MOST_SEED)
    """Seed of sampling."""
