"""Personal data is masked before training, where people used a model, and lineage holds."""

import json

import pytest

from harken.cli.main import main
from harken.core.errors import UserError
from harken.core.personal import find, mask
from harken.core.records import Judgment, Message, Prompt
from harken.store.database import open_database
from harken.store.files import read
from harken.store.masking import Masker
from harken.store.snapshots import snapshot

MAIL, CARD, CALL = "ada@example.org", "4111 1111 1111 1111", "+44 20 7946 0018"


def test_a_text_is_masked_once_and_all_that_is_found():
    text = f"Write to {MAIL} or call {CALL}; card {CARD}, twice {MAIL}."
    masked, counts = mask(text)
    assert masked == "Write to [email] or call [phone]; card [card], twice [email]."
    assert counts == {"email": 2, "phone": 1, "card": 1} == {k: len(v) for k, v in find(text).items()}
    assert mask(masked) == (masked, {}) and find(masked) == {}
    assert mask("Version 1.2.3, order 12345")[0] == "Version 1.2.3, order 12345"


@pytest.fixture
def db(tmp_path):
    """A thumb, an edit and a comparison from use, and a studio's comparison of the same words."""
    asked = Prompt((Message("system", f"You know {MAIL}."), Message("user", "Whom do I ask?")))
    served = {"answer": "c/0", "comment": f"my number is {CALL}"}
    edit = {"completion": f"Pay with {CARD}.", "original": "Pay.", "spans": [[0, 3]], "served": served,
            "completions": [f"Pay with {CARD}.", "Pay."], "ranks": [1, 2]}
    thumb = {"completion": f"Ask {MAIL}.", "label": True, "served": served}
    said = [Judgment(asked, "thumb", thumb, "u1", form_version="serve:thumb"),
            Judgment(asked, "edit", edit, "u1", form_version="serve:edit"),
            Judgment(Prompt.of("Plain?"), "ranking", {"completions": [f"Yes, {MAIL}.", "No."], "ranks": [1, 2]}, "l1")]
    with open_database(tmp_path / "f.db") as opened:
        opened.add_judgments(said)
        yield opened


def test_what_people_used_is_masked_in_a_snapshot_and_the_rest_is_not(db, tmp_path):
    info = snapshot(db, "comparisons", tmp_path / "c.jsonl")
    text = (tmp_path / "c.jsonl").read_text()
    assert CARD not in text and "Pay with [card]." in text and f"Yes, {MAIL}." in text
    assert "You know [email]." in text and "card 1" in info.masked
    meta = json.loads((tmp_path / "c.jsonl.meta.json").read_text())
    assert meta["masked"] == {"judgments": 1, "found": {"card": 1, "email": 1, "phone": 1}}
    plain = snapshot(db, "comparisons", tmp_path / "plain.jsonl", mask="none")
    assert plain.hash == meta["sha256_unmasked"] != info.hash and plain.masked is None
    assert "sha256_unmasked" not in json.loads((tmp_path / "plain.jsonl.meta.json").read_text())
    every = snapshot(db, "comparisons", tmp_path / "all.jsonl", mask="all")
    assert MAIL not in (tmp_path / "all.jsonl").read_text() and every.rows == plain.rows == info.rows


def test_a_masked_row_leads_back_to_its_prompt(db, tmp_path):
    snapshot(db, "comparisons", tmp_path / "c.jsonl")
    asked = {p.id for p in db.prompts()}
    (masked,) = [c for c in read(tmp_path / "c.jsonl").records if "masked_from" in c.prompt.meta]
    assert masked.prompt.meta["masked_from"] in asked and masked.prompt.id not in asked


def test_edits_thumbs_demonstrations_prompts_and_comments_are_masked(db, tmp_path):
    for kind in ("thumbs", "edits", "demonstrations", "prompts"):
        snapshot(db, kind, tmp_path / f"{kind}.jsonl")
        text = (tmp_path / f"{kind}.jsonl").read_text()
        assert MAIL not in text and CARD not in text and CALL not in text
    edit = Masker()(list(db.judgments())[1])
    assert edit.payload["spans"] == [] and edit.payload["served"]["comment"] == "my number is [phone]"
    assert edit.payload["served"]["answer"] == "c/0"


def test_nothing_found_changes_nothing(tmp_path):
    with open_database(tmp_path / "g.db") as db:
        db.add_judgments([Judgment(Prompt.of("Hi?"), "ranking", {"completions": ["a", "b"], "ranks": [1, 2], "served": []}, "u")])
        info = snapshot(db, "comparisons", tmp_path / "c.jsonl")
        assert info.masked is None and info.hash == snapshot(db, "comparisons", tmp_path / "n.jsonl", mask="none").hash


def test_the_command_says_what_it_masked(db, tmp_path, capsys):
    args = ["snapshot", "thumbs", "--db", str(tmp_path / "f.db"), "--out", str(tmp_path / "t.jsonl")]
    assert main(args) == 0
    assert "Personal data masked in" in capsys.readouterr().out
    with pytest.raises(UserError, match="whose personal data"):
        Masker("some")
