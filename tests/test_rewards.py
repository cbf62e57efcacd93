"""Rewards made of others: attributes weighted by preferences, ensembles, averages, and how a word becomes a reward."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.files import read_json, read_jsonl
from harken.core.records import Choice, Prompt
from harken.launch import rewards as launch_rewards
from harken.rewards.compositional import CompositionalReward, Term, pairs_of
from harken.rewards.ensemble import EnsembleReward
from harken.store.files import write_jsonl
from harken.store.scores import ScoreCache
from harken.text.attributes import Attribute, entropy_bits, load_attributes, parse_rating, question
from harken.text.panel import Panel, SampledRatings, qualities

ASK = [Prompt.of("What is the capital of France?")]


class Table:
    """A reward that is looked up."""

    def __init__(self, scores):
        self.scores, self.asked = scores, 0

    def score(self, prompts, completions):
        self.asked += sum(map(len, completions))
        return [[self.scores.get(t) for t in row] for row in completions]


# --- attributes ------------------------------------------------------------------------------------

@pytest.mark.parametrize("answer, rating", [("7", 7), (" 10", 10), ("\n3 out of 10", 3), ("8/10", 8), ("0", None), ("11", None),
                                            ("seven", None), ("", None), ("-3", None), ("100", None), ("I say 4", None)])
def test_ratings_are_read_or_missing(answer, rating):
    assert parse_rating(answer) == rating


def test_entropy_by_hand():
    """Half 1, half 2: one bit. All alike: none. Four values evenly: two bits; in steps of 2 they are two: one bit."""
    assert entropy_bits([1, 2, 1, 2], 1) == 1 and entropy_bits([5, 5, 5], 1) == 0
    assert entropy_bits([1, 2, 3, 4], 1) == 2 and entropy_bits([0, 0.4, 2, 2.4], 2) == 1


def test_the_thirteen_attributes_and_the_length_ship():
    found = load_attributes()
    assert len(found) == 14 and sum(not a.scorer for a in found) == 13 and found[-1].scorer == "measure:length"
    texts = [question(ASK[0], "Paris.", a, w).text for a in found[:13] for w in (0, 1)]
    assert len(set(texts)) == 26 and all("Paris." in t and "1 " in t and "10" in t for t in texts)


@pytest.mark.parametrize("content, message", [
    ('{"attributes": []}', "no list"), ('{"attributes": [{"name": "a"}]}', "'a' needs a description"), ("[]", "not an object"),
    ('{"attributes": [{"scorer": "pii"}]}', "needs a name"),
    ('{"attributes": [{"name": "a", "scorer": "pii", "up": "b"}]}', "'up'"),
    ('{"attributes": [{"name": "a", "scorer": "pii"}, {"name": "a", "scorer": "pii"}]}', "two attributes"),
    ('{"attributes": [{"name": 3}]}', "object of strings")])
def test_bad_attributes_are_named(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_attributes(tmp_path / "a.json")


# --- the panel -------------------------------------------------------------------------------------

class Judge:
    """Rates a reply by its length; cannot read replies with an x; answers the second wording from another day."""

    resolution = 1.0

    def __init__(self):
        self.asked = 0

    def rate(self, questions):
        self.asked += sum(map(len, questions))

        def one(q):
            reply = q.text.partition("The reply:\n")[2].partition("\n\n")[0]
            if "x" in reply:
                return None
            if "factually" in q.text:
                return 5.0
            return float(1 + (len(reply) * (3 if "Is it so" in q.text and "helps" in q.text else 1)) % 10)
        return [[one(q) for q in row] for row in questions]


def test_e1_e21_a_panel_asks_nothing_twice_and_keeps_what_is_missing(tmp_path):
    attributes, judge = load_attributes()[:4], Judge()
    items = [(ASK[0], t) for t in ("a", "bb", "x", "bb")]
    first = Panel(attributes, judge, identity="j/1", ratings=ScoreCache(tmp_path / "s.sqlite")).rate(items)
    assert np.isnan(first[2]).all() and (first[1] == first[3]).all() and judge.asked == 16
    again = Panel(attributes, judge, identity="j/1", ratings=ScoreCache(tmp_path / "s.sqlite")).rate(items)
    assert judge.asked == 16 and np.array_equal(first, again, equal_nan=True)
    Panel(attributes, judge, identity="j/2", ratings=ScoreCache(tmp_path / "s.sqlite")).rate(items)
    assert judge.asked == 32


def test_weak_attributes_are_told_by_entropy_failures_and_retest():
    items = [(ASK[0], "a" * i + ("x" if i > 33 else "")) for i in range(1, 37)]
    panel = Panel(load_attributes()[:4], Judge())
    found = dict(zip([a.name for a in panel.attributes], qualities(panel, items, panel.rate(items), retest=30)))
    assert found["factuality"].weak == "entropy 0.00 bit" and found["factuality"].retest is None
    assert found["specificity"].weak == "" and found["specificity"].retest == pytest.approx(1)
    assert found["helpfulness"].retest < 0.5 and found["helpfulness"].failures == pytest.approx(3 / 36)
    strict = qualities(panel, items, panel.rate(items), retest=0, most_failures=0.05)
    assert all("no rating for 8%" in q.weak and q.retest is None for q in strict)


def test_sampled_ratings_are_greedy_and_short():
    class Sampler:
        def sample(self, prompts, n, *, max_tokens, temperature, top_p=1.0, seed=0):
            assert (n, temperature) == (1, 0.0) and max_tokens < 10
            return [[type("S", (), {"text": f"{i + 1} points"})] for i in range(len(prompts))]

    assert SampledRatings(Sampler()).rate([[ASK[0]] * 2, [ASK[0]]]) == [[1.0, 2.0], [3.0]]


# --- the compositional reward ----------------------------------------------------------------------

def test_a_score_is_the_sum_of_its_parts_by_hand():
    """w = (2, −1, 0), means (5, 1, 0), sds (2, 0.5, 1): ratings (7, 2) give 2·1 − 1·2 = 0; (9, 1) gives 4."""
    scorers = {"good": Table({"a": 7.0, "b": 9.0, "c": 5.0}), "long": Table({"a": 2.0, "b": 1.0}), "idle": Table({})}
    attributes = [Attribute(n, scorer="t") for n in scorers]
    terms = [Term(a, m, s, w) for a, m, s, w in zip(attributes, (5, 1, 0), (2, 0.5, 1), (2, -1, 0))]
    reward = CompositionalReward(terms, Panel(attributes, scorers=scorers))
    assert reward.score(ASK, [["a", "b", "c"]]) == [[0.0, 4.0, None]]
    assert reward.explain(ASK, [["a", "b", "c"]]) == [[{"good": 2.0, "long": -2.0}, {"good": 4.0, "long": 0.0}, None]]
    assert scorers["idle"].asked == 0  # what L1 left out is not asked about


def test_p31_p32_pairs_of_rankings_and_ties():
    z = {(ASK[0].id, t): np.array([v]) for t, v in (("a", 3.0), ("b", 1.0), ("c", np.nan))}
    ranking = Choice(ASK[0], ("a", "b", "c"), (1, 1, 2))
    dropped, half = pairs_of([ranking], z, "drop"), pairs_of([ranking], z, "half")
    assert len(dropped.y) == 0 and dropped.missing == 2
    assert half.y.tolist() == [0.5] and half.weights.tolist() == [1 / 3] and half.x.tolist() == [[-2.0]]
    pair = pairs_of([Choice(ASK[0], ("a", "b"), (2, 1))], z, "drop")
    assert (pair.x.tolist(), pair.y.tolist(), pair.weights.tolist()) == ([[-2.0]], [1.0], [1.0])


@pytest.fixture
def planted(tmp_path):
    """300 prompts: people like courtesy and finished sentences, dislike length; the other measures say nothing to them."""
    rng = np.random.default_rng(0)
    filler, rows = ["the", "sea", "is", "blue", "and", "old", "wide", "far", "and", "and"], []
    for i in range(300):
        texts, value = [], []
        for _ in range(3):
            n, kind, done = int(rng.integers(3, 40)), int(rng.integers(0, 2)), int(rng.integers(0, 2))
            texts.append(("Thank you. " if kind else "") + " ".join(rng.choice(filler, n)) + ("." if done else ""))
            value.append(-n / 12 + 1.5 * kind + 1.0 * done)
        order = np.argsort(-(np.array(value) + rng.gumbel(size=3)))
        ranks = np.argsort(order) + 1
        rows.append({"prompt": f"Question {i}?", "completions": texts, "ranks": ranks.tolist()})
    write_jsonl(tmp_path / "c.jsonl", rows)
    return tmp_path


def test_fit_score_explain_and_serve_as_a_reward(planted, capsys):
    run = planted / "runs" / "cpm"
    command = ["fit", "compositional", "--judge", "rules", "--data", str(planted / "c.jsonl"), "--out", str(run)]
    assert main(command) == 0
    result = read_json(run / "result.json")
    rows = result["attributes"]
    assert rows["length"]["high"] < 0 < rows["sentiment"]["low"] and rows["finished"]["low"] > 0  # thanks are sentiment
    assert {n for n in rows if abs(rows[n].get("weight", 0)) > 0.3} == {"length", "sentiment", "finished"}
    assert "weak" in rows["list_items"] and "weight" not in rows["list_items"]
    assert result["accuracy"]["value"] > 0.7 > 0.55 > result["baselines"]["longest"]["value"]
    capsys.readouterr()
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().err

    assert main(["score", "--reward", str(run), "--data", str(planted / "c.jsonl"), "--explain",
                     "--out", str(planted / "s.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "sentiment" in shown and "score" in shown
    scored = read_jsonl(planted / "s.jsonl")
    for row in scored[:20]:
        for score, parts in zip(row["scores"], row["parts"]):
            assert score == pytest.approx(sum(parts.values()))
    assert np.mean([s for row in scored for s in row["scores"]]) == pytest.approx(0, abs=0.1)
    moved = run.rename(planted / "elsewhere")
    assert launch_rewards.open_reward(str(moved)).score(ASK, [["Thank you."]])[0][0] > 0


def test_planted_weights_are_recovered_with_their_scale(planted):
    """The Gumbel noise makes the planted values log-odds: 1 for a finished sentence, in units of the measure."""
    assert main(["fit", "compositional", "--judge", "rules", "--data", str(planted / "c.jsonl"),
                     "--out", str(planted / "r")]) == 0
    terms = {t["attribute"]["name"]: t for t in read_json(planted / "r" / "model" / "compositional.json")["terms"]}
    assert terms["finished"]["weight"] / terms["finished"]["sd"] == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize("extra, message", [
    (["--judge", "rules", "--folds", "400"], "too few for 400 folds"),
    (["--judge", "rules", "--penalty", "l3"], "unknown"),
    (["--judge", "rules", "--attributes", "none.json"], "no file"),
    (["--judge", "rules", "--min-entropy", "9"], "every one is weak"),
    (["--judge", "rules", "--weak", "fail"], "Weak attributes"), (["--judge", "http://127.0.0.1:9/v1"], "--answers sampled"),
    (["--judge", "no/such/model/here"], "no model at")])
def test_mistakes_are_one_message(planted, capsys, extra, message):
    status = main(["fit", "compositional", "--data", str(planted / "c.jsonl"), "--out", str(planted / "bad"), *extra])
    text = capsys.readouterr().err
    assert status == 2 and message in text and "Traceback" not in text
    assert not (planted / "bad" / "result.json").exists()


def test_an_unfinished_fit_is_no_reward(planted):
    run = planted / "half"
    assert main(["fit", "compositional", "--judge", "rules", "--data", str(planted / "c.jsonl"), "--out", str(run)]) == 0
    (run / "result.json").unlink()
    (run / "model" / "compositional.json").unlink()
    with pytest.raises(UserError, match="not finished"):
        launch_rewards.open_reward(str(run))


# --- an endpoint as the judge ----------------------------------------------------------------------

@pytest.fixture
def endpoint():
    """A chat completions server that rates by length, fails the first time, and counts."""
    class Handler(BaseHTTPRequestHandler):
        seen, fails = [], 1

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.seen.append((self.path, body, self.headers.get("Authorization")))
            choice = {"message": {"content": self.reply(body)}, "finish_reason": "stop"}
            status, answer = 200, {"choices": [choice] * body["n"]}
            if Handler.fails:
                Handler.fails, status, answer = Handler.fails - 1, 503, {"error": "busy"}
            if body.get("model") == "unknown":
                status, answer = 404, {"error": "no such model"}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def reply(self, body):
            text = body["messages"][-1]["content"]
            return str(1 + len(text.partition("The reply:\n")[2].partition("\n\n")[0]) % 10) + " of 10"

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", Handler
    server.shutdown()
    server.server_close()


def test_an_endpoint_judges_and_busy_is_tried_again(endpoint, planted, monkeypatch):
    url, handler = endpoint
    monkeypatch.setenv("HARKEN_API_KEY", "secret")
    monkeypatch.setattr("harken.engines.openai.time.sleep", lambda s: None)
    rows = read_jsonl(planted / "c.jsonl")[:30]
    write_jsonl(planted / "few.jsonl", rows)
    (planted / "a.json").write_text(json.dumps({"attributes": [
        {"name": "warm", "description": "is warm", "low": "cold", "high": "warm"},
        {"name": "length", "scorer": "measure:length"}]}))
    assert main(["fit", "compositional", "--judge", url, "--judge-model", "m", "--answers", "sampled", "--folds", "3",
                     "--attributes", str(planted / "a.json"), "--data", str(planted / "few.jsonl"),
                     "--out", str(planted / "r")]) == 0
    path, body, key = handler.seen[0]
    assert path == "/v1/chat/completions" and (body["model"], body["temperature"]) == ("m", 0.0) and key == "Bearer secret"
    assert "secret" not in "".join(p.read_text(errors="replace") for p in (planted / "r").rglob("*") if p.is_file())
    assert read_json(planted / "r" / "result.json")["attributes"]["warm"]["failures"] == 0


def test_a_dead_or_wrong_endpoint_is_said(endpoint, monkeypatch):
    from harken.engines.openai import EndpointSampler
    monkeypatch.setattr("harken.engines.openai.time.sleep", lambda s: None)
    with pytest.raises(UserError, match="no such model"):
        EndpointSampler(endpoint[0], "unknown").sample(ASK, 1, max_tokens=4)
    with pytest.raises(UserError, match="does not answer"):
        EndpointSampler("http://127.0.0.1:9").sample(ASK, 1, max_tokens=4)


def test_an_endpoints_wait_is_kept_and_a_text_in_parts_is_a_text(endpoint, monkeypatch):
    from harken.engines.openai import EndpointSampler
    url, handler = endpoint
    waits = []
    monkeypatch.setattr("harken.engines.openai.time.sleep", waits.append)
    for says, waited in (("7", 7.0), ("900", 60.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 1.0), ("", 1.0)):
        handler.fails = 1
        monkeypatch.setattr(handler, "end_headers", lambda self, says=says: (
            self.send_header("Retry-After", says), BaseHTTPRequestHandler.end_headers(self))[1])
        EndpointSampler(url).sample(ASK[:1], 1, max_tokens=4)
        assert waits.pop() == waited and not waits
    monkeypatch.setattr(handler, "reply", lambda self, body: [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}])
    assert EndpointSampler(url).sample(ASK[:1], 1, max_tokens=4)[0][0].text == "a b"
    for nonsense in (7, {"text": "a"}, [3]):
        monkeypatch.setattr(handler, "reply", lambda self, body, nonsense=nonsense: nonsense)
        with pytest.raises(UserError, match="without choices"):
            EndpointSampler(url).sample(ASK[:1], 1, max_tokens=4)


def test_an_endpoint_that_dies_halfway_gives_what_it_had_said(endpoint, monkeypatch):
    from harken.engines.openai import EndpointSampler, NoText
    url, handler = endpoint
    monkeypatch.setattr("harken.engines.openai.time.sleep", lambda s: None)
    handler.fails = 0
    monkeypatch.setattr(handler, "reply", lambda self, body: 1 / 0 if len(handler.seen) > 3 else "fine")
    with pytest.raises(UserError, match="does not answer") as raised:
        EndpointSampler(url, parallel=1).sample(ASK * 6, 1, max_tokens=4)
    assert {i: samples[0].text for i, samples in raised.value.answered.items()} == {0: "fine", 1: "fine", 2: "fine"}
    monkeypatch.setattr(handler, "reply", lambda self, body: None)
    ((null,),) = EndpointSampler(url).sample(ASK, 1, max_tokens=4)
    assert null.text == "" and isinstance(null.text, NoText)


# --- ensembles -------------------------------------------------------------------------------------

def test_ensembles_by_hand():
    """Scores 1, 3 and 5: mean 3, least 1, variance (4 + 0 + 4) / 2 = 4, so UWO at 0.5 is 1 and they disagree by 2."""
    members = {str(v): Table({"a": float(v), "b": 2.0}) for v in (1, 3, 5)}
    for combine, wanted in (("mean", 3.0), ("min", 1.0), ("uwo", 1.0)):
        assert EnsembleReward(members, combine).score(ASK, [["a", "b", "c"]]) == [[wanted, 2.0, None]]
    one = EnsembleReward(members)
    assert one.disagreement(ASK, [["a", "b", "c"]]) == [[2.0, 0.0, None]]
    assert one.explain(ASK, [["a", "c"]]) == [[{"1": 1.0, "3": 3.0, "5": 5.0, "disagreement": 2.0}, None]]


def test_words_become_ensembles():
    text = [["Thank you, you idiot."]]
    parts = [launch_rewards.open_reward(s).score(ASK, text)[0][0] for s in ("toxicity", "sentiment")]
    assert launch_rewards.open_reward("toxicity,sentiment").score(ASK, text)[0][0] == pytest.approx(np.mean(parts))
    assert launch_rewards.open_reward("min:toxicity,sentiment").score(ASK, text)[0][0] == min(parts)
    uwo = launch_rewards.open_reward("uwo=2:toxicity,sentiment")
    assert uwo.score(ASK, text)[0][0] == pytest.approx(np.mean(parts) - 2 * np.var(parts, ddof=1))
    assert launch_rewards.parse_reward("min:toxicity,pii").identity() == {"how": "min", "members": ["toxicity/2", "pii/1"]}


@pytest.mark.parametrize("spec, message", [
    ("", "No reward"), ("min:toxicity", "needs two"), ("runs/none", "no reward model at"), ("min:mean:a,b", "inside an ensemble"),
    ("average:gold,toxicity", "no weights to average"), ("toxicity,nonsense", "no reward model at nonsense"),
    ("mean:", "needs two"), ("average:toxicity,pii", "no weights to average")])
def test_wrong_words_are_said(spec, message):
    with pytest.raises(UserError, match=message):
        launch_rewards.open_reward(spec)


def test_p_weights_of_differences_are_log_odds():
    """The scale of the score is that of a Bradley–Terry reward: σ(difference) is the chance planted."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 2))
    y = rng.random(4000) < special.expit(z @ [1.0, -0.5])
    from harken.stats.logistic import fit
    assert fit(z, y, C=100.0) == pytest.approx([1.0, -0.5], abs=0.12)


def test_a_half_that_scores_all_answers_alike_correlates_with_nothing(monkeypatch):
    """benchmarks/compositional.py: JSON knows null, not NaN."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import compositional as bench
    a = np.array([-1.0, 1.0, 1.0, -1.0])
    assert bench.correlation(a, np.zeros(4)) is None and bench.correlation(np.full(4, 1e-8), a) is None
    assert bench.correlation(a, -a) == pytest.approx(-1)
