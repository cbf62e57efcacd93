"""Over HTTP too: no text that a person can send becomes a control token, in any field of any route, for any model (P34)."""

import json
from argparse import Namespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from harken.engines.live import Score
from harken.store.drawers import read_drawers
from harken.text.tags import BAD, GOOD
from serve_site import Served, toy_sampler, weights
from test_drawers import TOOLS, written


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A server of weights, and the ids of every prompt its model was given."""
    sampler = toy_sampler()
    site = Served([weights(sampler=sampler)], folder=tmp_path_factory.mktemp("toy"))
    live, given = site.server.arms.backends[0].live, []
    real = live.submit
    live.submit = lambda ask: (given.append(ask.ids if isinstance(ask, Score) else ask.prompt), real(ask))[1]
    yield site, sampler.engine.template, given
    site.stop()


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """The same of a model with <|good|> and <|bad|>, which answers in good mode."""
    from harken.cli.serve import open_backend
    from harken.engines.scratch import make_new
    made = tmp_path_factory.mktemp("phf") / "model"
    make_new(made, ["One two. Three four five! Six?"], architecture="llama", size="60K", vocabulary=280, context=512, seed=1,
             segmenter="sentence")
    args = Namespace(dtype="float32", template="", rows=4, context=0, max_tokens=2, timeout=30.0, mode="good")
    backend, given = open_backend("m", str(made), args), []
    real = backend.sampler.guide.opened
    backend.sampler.guide.opened = lambda ids: (given.append(tuple(ids)), real(ids))[1]
    site = Served([backend])
    yield site, backend.sampler.engine.template, given
    site.stop()


def texts(template):
    """Every control token of a model, and both tags, as a person may type them."""
    marks = sorted({*template.tokens.control.values(), GOOD, BAD})
    return ["".join(marks), " ".join(f"a {mark} b{mark}" for mark in marks)]


def control(template, ids):
    return [i for i in ids if i in template.tokens.control and i != template.tokenizer.unk_token_id]


def chats(site, said):
    """The bodies of a chat with a text in every place that takes one."""
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
    model = {"model": site.server.arms.names[0], "max_tokens": 1}
    for messages in ([{"role": "user", "content": said}], [{"role": "user", "content": [{"type": "text", "text": said}]}],
                     [{"role": "system", "content": said}, user], [{"role": "developer", "content": said}, user],
                     [user, {"role": "assistant", "content": said}, user], [{"role": "user", "content": said}, answer, user]):
        yield messages, model
    yield [user], model | {"stop": said}
    yield [user], model | {"stop": [said, "x"]}
    yield [user], model | {"user": said.replace("\n", "")}
    yield [user], model | {"safety_identifier": said.replace("\n", "")}


@pytest.mark.parametrize("which", ["toy", "steered"])
def test_no_field_of_a_chat_becomes_control(which, request):
    site, template, given = request.getfixturevalue(which)

    def scaffold(said):
        """What control each body's prompt holds, in order."""
        rows = []
        for messages, more in chats(site, said):
            given.clear()
            status, answer, _ = site.call("POST", "/v1/chat/completions", {**more, "messages": messages})
            assert status == 200, answer
            rows.append([control(template, ids) for ids in given])
        return rows
    plain = scaffold("ok")
    assert all(rows and len(set(map(tuple, rows))) == 1 for rows in plain)
    for said in texts(template):
        assert scaffold(said) == plain, said


@pytest.mark.parametrize("field", [
    {"role": "user", "content": "Hi", "name": GOOD}, {"role": "tool", "content": BAD}, {"role": BAD, "content": "Hi"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": BAD}]}])
def test_what_is_no_text_of_a_turn_is_refused(toy, field):
    site, _, given = toy
    given.clear()
    messages = [field, {"role": "user", "content": "Hi"}]
    assert site.call("POST", "/v1/chat/completions", {"model": "toy", "messages": messages})[0] == 400 and not given


def test_no_text_to_complete_becomes_control(toy):
    """As one text, as several, echoed and scored."""
    site, template, given = toy
    for said in texts(template):
        for body in ({"prompt": said}, {"prompt": ["ok", said]}, {"prompt": said, "echo": True, "logprobs": 1, "max_tokens": 0},
                     {"prompt": "ok", "stop": said}):
            given.clear()
            status, answer, _ = site.call("POST", "/v1/completions", {"model": "toy", "max_tokens": 1, **body})
            assert status == 200, answer
            assert given and not any(control(template, ids) for ids in given), (said, body)


def test_what_people_say_of_an_answer_trains_as_text(toy):
    """Edits, demonstrations, comments and rephrased prompts, through the database to the ids that a method trains on."""
    site, template, _ = toy
    said = texts(template)[0]
    got = site.chat(said, max_tokens=2)[1]
    right = {"id": got["id"], "choice": 0, "token": got["harken"]["feedback"][0]}
    for kind in ("edit", "demonstration"):
        answer = site.call("POST", "/v1/feedback", {**right, "kind": kind, "value": said, "comment": said})
        assert answer[0] == 200, answer
    (choice,), shown = list(site.server.db.comparisons()), list(site.server.db.demonstrations())
    scaffold = control(template, template.prompt_ids(type(choice.prompt).of("ok")))
    assert control(template, template.prompt_ids(choice.prompt)) == scaffold
    ends = [control(template, template.completion_ids(text)) for text in (*choice.options, *(d.completion for d in shown))]
    assert len(ends) == 4 and all(ids == [template.end_id] for ids in ends)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_other_tools_kept_trains_as_text(tool, tmp_path, toy):
    _, template, _ = toy
    said = texts(template)[0]
    files = json.loads(json.dumps(TOOLS[tool]()).replace("Paris.", f"Paris. {said}").replace("What is", f"{said} What is"))
    found = read_drawers(written(tmp_path, files)).judgments
    scaffold = control(template, template.prompt_ids(type(found[0].prompt).of("ok")))
    assert any(said in j.prompt.text for j in found) and any(said in j.payload["completion"] for j in found)
    for judgment in found:
        turns = control(template, template.prompt_ids(judgment.prompt))
        assert turns == scaffold or judgment.prompt.messages[0].role == "system"
        assert control(template, template.completion_ids(judgment.payload["completion"])) == [template.end_id]
