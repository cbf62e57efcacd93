"""Published data sets with shapes of their own. Each says which side is the better one, and where that is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harken.core.records import Choice, Message, Prompt
from harken.store.shapes.dialogue import ROLES, answer_of, messages, prompt_turns, shared
from harken.store.shapes.fields import VERDICT_IN_WORDS, Row, UnreadField
from harken.store.shapes.parts import Turns, choice, dense, number, parsed, question, string

WIN, LOSS, TIE = (1, 2), (2, 1), (1, 1)


def oasst_flat(row: Row) -> list[Choice]:
    """OpenAssistant's flat files: a row is a message, and the ranking needs its sisters."""
    raise ValueError("a row is one message of a tree (flat OpenAssistant file): import the file of whole trees (…trees.jsonl)")


def oasst_tree(row: Row) -> list[Choice]:
    """OpenAssistant tree: each user node with two or more ranked replies is a comparison (rank 0 is best)."""
    root = parsed(row.take("prompt")) if "replies" not in row else row
    row.used |= row.keys()
    if not isinstance(root, Mapping):
        raise ValueError('a tree needs a "prompt" object with "replies"')
    choices: list[Choice] = []
    stack: list[tuple[Mapping[str, Any], Turns]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        role = node.get("role")
        path = (*path, Message.from_json({"role": ROLES.get(role, role) if isinstance(role, str) else role,
                                          "content": _text(node)}))
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(r, Mapping) for r in replies):
            raise ValueError('"replies" must be a list of objects')
        ranked = [r for r in replies if type(r.get("rank")) is int and not r.get("deleted")]
        if path[-1].role == "user" and len(ranked) >= 2:
            ranks = dense([-r["rank"] for r in ranked])
            choices.append(Choice(Prompt(path), tuple(_text(r) for r in ranked), ranks))
        stack.extend((reply, path) for reply in reversed(replies))
    return choices


def _text(node: Mapping[str, Any]) -> str:
    text = node.get("text")
    if not isinstance(text, str):
        raise ValueError(f'"text" must be a string, found {"nothing" if text is None else type(text).__name__}')
    return text


def fine_grained(row: Row) -> list[Choice]:
    """FineGrainedRLHF's `dev_feedback.json`: 4 predictions and a preference for each of their 6 pairs.

    Pairs come in the order (1,2) (1,3) (1,4) (2,3) (2,4) (3,4); 1 and 2 say that the first or the
    second is better, 0 is a tie. Ranks follow the Copeland score (pairs won minus pairs lost), equal
    scores tied. Where the pairs fit a ranking with ties (478 of the 500 rows) this is that ranking.
    In the other 22 it reverses no stated preference but orders some pairs that were called ties.
    The retrieved passages stay in the prompt's `meta`: the question alone is the prompt.
    """
    answers = [string(row, f"prediction {k}") for k in (1, 2, 3, 4)]
    preference = row.take("preference")
    if not isinstance(preference, list) or len(preference) != 6 or not all(p in (0, 1, 2) for p in preference):
        raise ValueError('"preference" must be six of 0, 1, 2: one for each pair of the 4 predictions')
    row.aside |= {name for name in row if name.startswith("feedback") or name == "gold_passages"}
    score = [0, 0, 0, 0]
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    for (i, j), better in zip(pairs, preference, strict=True):
        sign = {0: 0, 1: 1, 2: -1}[better]
        score[i] += sign
        score[j] -= sign
    passages = row.take("passages")
    meta = {"passages": passages} if passages else {}
    return [Choice(Prompt.of(string(row, "question"), meta=meta), tuple(answers), dense(score))]


def shp(row: Row) -> list[Choice]:
    """Stanford Human Preferences: `history` is the post, `labels` 1 where answer A has the higher score, 0 for B."""
    label = number(row.take("labels"))
    if label not in (0, 1) or isinstance(label, bool):
        raise ValueError(f'"labels" must be 1 (A is preferred) or 0 (B), found {label!r:.40}')
    row.aside |= {"score_A", "score_B", "score_ratio"} | {n for n in row if n.startswith("upvote_ratio")}
    asked = prompt_turns(string(row, "history"), "history")
    del row["history"]
    return [choice(row, asked, [string(row, "human_ref_A"), string(row, "human_ref_B")], WIN if label else LOSS)]


def webgpt(row: Row) -> list[Choice]:
    """WebGPT's comparisons: `score_0` and `score_1` sum to zero, the higher is preferred, equal ones tie."""
    scores = [number(row.take(f"score_{k}")) for k in (0, 1)]
    if not all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in scores):
        raise ValueError('"score_0" and "score_1" must be numbers')
    given = parsed(row.take("question"))
    text = given.get("full_text") if isinstance(given, Mapping) else given
    if not isinstance(text, str):
        raise ValueError('"question" must be a string or an object with "full_text"')
    row.aside |= {"quotes_0", "quotes_1"}
    return [choice(row, prompt_turns(text, "question"), [string(row, "answer_0"), string(row, "answer_1")], dense(scores))]


def summaries(row: Row) -> list[Choice]:
    """OpenAI's summarize_from_feedback: `choice` is the place (0 or 1) of the better of two summaries of `info`'s post."""
    info, given, best = parsed(row.take("info")), parsed(row.take("summaries")), number(row.take("choice"))
    if not isinstance(info, Mapping) or not isinstance(given, list) or len(given) != 2 \
            or not all(isinstance(s, Mapping) and isinstance(s.get("text"), str) for s in given):
        raise ValueError('the row needs "info" and two "summaries" with a "text"')
    if best not in (0, 1) or isinstance(best, bool):
        raise ValueError(f'"choice" must be 0 or 1, found {best!r:.40}')
    post = next((info[n] for n in ("post", "article") if isinstance(info.get(n), str) and info[n].strip()), None)
    if post is None:
        raise ValueError('"info" holds neither "post" nor "article"')
    title = info.get("title")
    text = f"{title}\n\n{post}" if isinstance(title, str) and title.strip() else post
    return [choice(row, (Message("user", text),), [s["text"].strip() for s in given], LOSS if best else WIN)]


def arena(row: Row) -> list[Choice]:
    """Chatbot Arena: `conversation_a`, `conversation_b` and `winner` (model_a, model_b, tie, tie (bothbad))."""
    both = [messages(parsed(row.take(f"conversation_{k}")), f"conversation_{k}") for k in "ab"]
    winner = row.take("winner")
    ties = dict.fromkeys(("tie", "tie (bothbad)", "both_bad", "both_good"), TIE)
    ranks = {"model_a": WIN, "model_b": LOSS, **ties}.get(str(winner))
    if winner is None:
        raise ValueError('"winner" is null: nobody said which is better')
    if ranks is None:
        raise UnreadField(f'"winner" {str(winner)[:40]!r} is none of model_a, model_b, tie, tie (bothbad)', VERDICT_IN_WORDS)
    if "bad" in str(winner):
        row.notes.append("both were called bad: kept as a tie")
    row.aside |= {"conv_metadata", "category_tag", "toxic_chat_tag", "openai_moderation", "full_conversation",
                  "evaluation_session_id", "evaluation_order"} & row.keys()
    turn = number(row.take("turn"))
    if isinstance(turn, int) and turn >= 1:  # MT-bench: both turns stand there, and one was judged
        both = [_until(d, turn) for d in both]
    cut = min(shared(*both), *(len(d) - 1 for d in both))
    if any(len(d) > cut + 1 for d in both):
        raise ValueError("the two conversations differ before their last answer: several turns cannot be compared at once")
    return [choice(row, both[0][:cut], [answer_of(d[cut:], f"conversation_{k}") for d, k in zip(both, "ab")], ranks)]


def _until(dialogue: Turns, turn: int) -> Turns:
    """A dialogue up to its `turn`-th question and the answer to it."""
    asked = [i for i, m in enumerate(dialogue) if m.role == "user"]
    return dialogue[:asked[turn]] if turn < len(asked) else dialogue


def kaggle(row: Row) -> list[Choice]:
    """LMSYS on Kaggle: `prompt`, `response_a`, `response_b` as JSON lists of turns; one of three `winner_…` is 1."""
    wins = [number(row.take(name)) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
    wins = [str(w).lower() in ("1", "true") for w in wins]
    if sum(wins) != 1:
        raise ValueError("exactly one of winner_model_a, winner_model_b, winner_tie must be 1")
    asked, *both = ([t] if isinstance(t := parsed(row.take(name)), str) else t for name in ("prompt", "response_a", "response_b"))
    if not all(isinstance(t, list) and t and all(isinstance(x, str) for x in t) for t in (asked, *both)):
        raise ValueError('"prompt", "response_a" and "response_b" must be lists of texts')
    if len(asked) != 1 and both[0][:-1] != both[1][:-1]:
        raise ValueError("the two dialogues differ before their last answer: several turns cannot be compared at once")
    if not len(asked) == len(both[0]) == len(both[1]):
        raise ValueError("prompts and responses differ in number")
    talk = [m for message, reply in zip(asked, both[0]) for m in (Message("user", message), Message("assistant", reply))][:-1]
    return [choice(row, talk, [d[-1] for d in both], (WIN, LOSS, TIE)[wins.index(True)])]


def helpsteer3(row: Row) -> list[Choice]:
    """HelpSteer3: `overall_preference` from -3 (response 1 is much better) through 0 (about the same) to 3 (response 2)."""
    asked = messages(parsed(row.take("context")), "context")
    row.aside.add("individual_preference")
    return [_signed(row, asked, "overall_preference", ("response1", "response2"))]


def helpsteer2(row: Row) -> list[Choice]:
    """HelpSteer2's preferences: `preference_strength` from -3 (response 1 is much better) to 3 (response 2)."""
    row.aside |= {n for n in row if "preference" in n and n != "preference_strength"}
    asked = question(row)
    if asked is None:
        raise ValueError('"prompt" is missing')
    return [_signed(row, asked, "preference_strength", ("response_1", "response_2"))]


def _signed(row: Row, asked: Sequence[Message], field: str, names: Sequence[str]) -> Choice:
    value = number(row.take(field))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -3 <= value <= 3:
        raise ValueError(f'"{field}" must be a number from -3 to 3, found {value!r:.40}')
    ranks = TIE if value == 0 else WIN if value < 0 else LOSS
    row["strength"] = abs(value)
    return choice(row, asked, [string(row, name) for name in names], ranks)


def nectar(row: Row) -> list[Choice]:
    """Nectar: `answers` with a `rank` each, 1 the best."""
    given = parsed(row.take("answers"))
    row.aside.add("good_natured")
    ranks = [number(a.get("rank")) for a in given]
    if not all(type(r) is int and r >= 1 for r in ranks):
        raise ValueError('every answer needs a whole "rank", 1 the best')
    asked = question(row)
    if asked is None:
        raise ValueError('"prompt" is missing')
    return [choice(row, asked, [_answer(a) for a in given], ranks)]


def scored(row: Row) -> list[Choice]:
    """UltraFeedback: `completions`, objects with a `response` and an `overall_score`; the higher is better, equal ones tie."""
    given = parsed(row.take("completions"))
    scores = [number(c.get("overall_score")) for c in given]
    if not all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in scores):
        raise ValueError('every completion needs an "overall_score", a number')
    row.aside |= {"correct_answers", "incorrect_answers"}
    asked = question(row)
    if asked is None:
        raise ValueError('"instruction" is missing')
    row.notes.append("ranked by overall_score; the scores by aspect are not read")
    if any(c.get("custom_system_prompt") for c in given):
        row.notes.append("each answer was written under a system prompt of its own, which is not read")
    return [choice(row, asked, [_answer(c) for c in given], dense(scores))]


def voted(row: Row) -> list[Choice]:
    """Stack Exchange preferences: `answers` with a `pm_score` each (from the votes), the higher is better, equal ones tie."""
    given = parsed(row.take("answers"))
    scores = [number(a.get("pm_score")) for a in given]
    if not all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in scores):
        raise ValueError('every answer needs a "pm_score", a number')
    return [choice(row, prompt_turns(string(row, "question"), "question"), [_answer(a) for a in given], dense(scores))]


def google(row: Row) -> list[Choice]:
    """Vertex AI's preferences: `contents` and two or more `completions` with a `score` each, the higher is better."""
    given = parsed(row.take("completions"))
    scores = [number(c.get("score")) for c in given]
    if not all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in scores):
        raise ValueError('every completion needs a "score", a number')
    asked = question(row)
    assert asked is not None
    return [choice(row, asked, [answer_of(messages(c.get("completion"), "completions"), "completions") for c in given],
                   dense(scores))]


def prism(row: Row) -> list[Choice]:
    """PRISM's conversations: at each turn several answers with a `score` from 1 to 100; the one `if_chosen` goes on."""
    history = parsed(row.take("conversation_history"))
    row.aside |= {n for n in row if n.endswith("attributes") or n in ("open_feedback", "opening_prompt")}
    choices: list[Choice] = []
    asked: Turns = ()
    for turn in sorted({m["turn"] for m in history}):
        now = [m for m in history if m["turn"] == turn]
        (said,), answers = messages([m for m in now if m["role"] == "user"], "conversation_history"), \
            [m for m in now if m["role"] != "user"]
        scores = [number(m.get("score")) for m in answers]
        if not all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in scores):
            raise ValueError(f"an answer of turn {turn} has no score")
        asked = (*asked, said)
        if len(answers) > 1:
            choices.append(choice(row, asked, [string(Row(m), "content") for m in answers], dense(scores)))
        best = [m for m in answers if m.get("if_chosen") in (True, 1)]
        if len(best) != 1:
            raise ValueError(f"turn {turn} has {len(best)} answers that were chosen, not one")
        asked = (*asked, Message("assistant", string(Row(best[0]), "content")))
    return choices


def _answer(given: Mapping[str, Any]) -> str:
    text = next((given[n] for n in ("response", "answer", "text", "content") if isinstance(given.get(n), str)), None)
    if text is None:
        raise ValueError("an answer holds no text")
    return str(text)


def listed(row: Row, field: str, key: str) -> bool:
    """Whether a field is a list of objects that have a key."""
    value = parsed(row.get(field))
    return isinstance(value, list) and len(value) > 0 and all(isinstance(v, Mapping) and key in v for v in value)
