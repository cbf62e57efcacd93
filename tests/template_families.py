"""Small tokenizers of every kind, made with any template's markers, and what a template's markers are."""

import re
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
WORDS = ["It", "is", "the", "answer", "user", "assistant", "system", "in", "on"]


def trl_templates():
    """The templates that take text, of trl's wheel; those for training repeat others with marks. None without trl."""
    import importlib.util
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations))) / "chat_templates"
    seen = ("llava", "idefics", "smolvlm", "_training")
    return {f.stem: f.read_text(encoding="utf-8") for f in sorted(folder.glob("*.jinja")) if not any(s in f.stem for s in seen)}


def markers(source):
    """What looks like a control token in a template's source."""
    found = re.findall(r"<[|｜][^<>\n' +]+?[|｜]>|</?(?:start|end)_of_turn>|<turn\|>|<\|turn>|</?think>|\[/?[A-Z_]{3,}\]"
                       r"|\[gMASK\]|<sop>|<\|[a-z_]+>|<[a-z_]+\|>|<bos>|</?s>", source)
    return sorted(set(found) - {"<s>", "</s>"})


def _fast(tokenizer, marks, bos="<s>", eos="</s>", unk=None):
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, unk_token=unk)
    fast.add_special_tokens({"additional_special_tokens": [AddedToken(m, normalized=False, special=True) for m in marks]})
    return fast


def byte_bpe(marks=(), **special):
    """GPT-2's kind: every byte has a letter; with merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "i"), ("Ġi", "s"), ("t", "h"), ("Ċ", "Ċ"), ("i", "n"), ("<", "|")]
    vocabulary = {t: i for i, t in enumerate([*letters, *("".join(m) for m in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, marks, **special)


def tiktoken_like(marks=(), **special):
    """Llama 3's kind: a pattern cuts the text, then bytes; a whole word of the vocabulary needs no merges."""
    from tokenizers import Regex
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate([*letters, "Ġis", ".Ċ", "<|eot_id|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    pattern = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, marks, **special)


def _pieces(marks):
    letters = ["▁", *CHARACTERS.strip(" \n"), "▁It", "is", "▁is"]
    return ["<unk>", "<s>", "</s>", *marks, *(f"<0x{b:02X}>" for b in range(256)), *letters]


def fallback_bpe(marks=(), **special):
    """Llama 2's and Mistral's kind: a blank before every text, bytes for what is unknown, control among the vocabulary."""
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(_pieces(marks)))}
    for word in ("<|", "</", "</s"):
        vocabulary.setdefault(word, len(vocabulary))
    merges = [("▁", "I"), ("▁I", "t"), ("i", "s"), ("▁", "is"), ("<", "|"), ("<", "/"), ("</", "s"), ("</s", ">")]
    vocabulary |= {"▁I": len(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return _fast(tokenizer, marks, unk="<unk>", **special)


def metaspace(marks=(), **special):
    """Newer SentencePiece: a blank before the first text alone."""
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(_pieces(marks)))}
    vocabulary |= {"▁I": len(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "I"), ("▁I", "t"), ("i", "s"), ("▁", "is")], unk_token="<unk>",
                                     byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return _fast(tokenizer, marks, unk="<unk>", **special)


def unigram(marks=(), **special):
    """T5's and XLM-R's kind: control tokens are pieces of the vocabulary with the best score, and NFKC before all."""
    pieces = dict.fromkeys(_pieces(marks))
    scores = [(p, 0.0 if p in ("<s>", "</s>", *marks) else -3.0 - len(p) / 10) for p in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="always"), decoders.ByteFallback(), decoders.Fuse()])
    return _fast(tokenizer, marks, unk="<unk>", **special)


def wordpiece(marks=(), **special):
    """BERT's kind: lower case, words cut at punctuation, blanks lost."""
    letters = [c for c in CHARACTERS if not c.isspace() and not c.isupper()]
    vocabulary = ["[UNK]", "<s>", "</s>", *marks, *letters, *("##" + c for c in letters), *(w.lower() for w in WORDS)]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(dict.fromkeys(vocabulary))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _fast(tokenizer, marks, unk="[UNK]", **special)


def word_level(marks=(), **special):
    """One character a token, control among the vocabulary."""
    from tokenizers import Regex
    vocabulary = ["<unk>", "<s>", "</s>", *marks, *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(dict.fromkeys(vocabulary))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer, marks, unk="<unk>", **special)


FAMILIES = {f.__name__: f for f in (byte_bpe, tiktoken_like, fallback_bpe, metaspace, unigram, wordpiece, word_level)}
EOS = {"llama3": "<|end_of_text|>", "gemma": "<eos>", "qwen": "<|endoftext|>", "deepseek": "<｜end▁of▁sentence｜>",
       "gptoss": "<|return|>", "glm": "<|endoftext|>", "phi": "<|endoftext|>", "cohere": "<|END_OF_TURN_TOKEN|>"}


def tokenizer_for(name, source, family="byte_bpe"):
    """A small tokenizer of a family with the markers of a template, its chat template set."""
    eos = next((e for prefix, e in EOS.items() if name.startswith(prefix)), "</s>")
    found = FAMILIES[family](markers(source), eos=eos)
    found.chat_template = source
    return found
