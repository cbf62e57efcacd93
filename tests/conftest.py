"""Shared fixtures: tiny engines, and where real data lies if it is here."""

import gc
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

# Tiny models, several processes: more threads only wait for each other. The variable is for what tests start;
# here a pytest plugin may have loaded torch already. Equal bits need equal threads.
os.environ["OMP_NUM_THREADS"] = "1"
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)

import pytest

from harken.store import migrations
from harken.web import accounts

DATA = Path(os.environ.get("HARKEN_DATA") or Path(__file__).parents[1].parent / "shared" / "data")


def pytest_collection_finish():
    """What stays until the end, four thousand tests and torch, is not looked through by each collection of garbage."""
    gc.collect()
    gc.freeze()


COSTLY = frozenset((Path(__file__).parent / "costly.txt").read_text(encoding="utf-8").splitlines())
"""Unit tests that cost most of the processor run with the slow ones: tools/costly.py wrote the list."""


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items):
    for item in items:
        if os.environ.get("COSTLY") != "" and item.nodeid.removeprefix("tests/") in COSTLY:
            item.add_marker(pytest.mark.slow)


PASSWORD_COST = dict(accounts.COST)
accounts.COST.update(iterations=1, memory_cost=8)  # 40 ms a login otherwise; tests/test_security_access.py holds it


def migrate_by_heart(connection, name, really=migrations.migrate, known={}):  # noqa: B006  kept on purpose
    """A new SQLite database gets the tables that migrating the first one made: 40 ms each are a tenth of all unit tests."""
    if connection.dialect.name != "sqlite" or migrations.version(connection, name) > 0:
        return really(connection, name)
    raw, steps = connection.connection.driver_connection, tuple(migrations.MIGRATIONS)
    if steps not in known:
        really(connection, name)
        made = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql <> '' AND name NOT LIKE 'sqlite_%'").fetchall()
        virtual = tuple(f"{table}_" for table, sql in made if sql.startswith("CREATE VIRTUAL"))  # make further ones themselves
        known[steps] = [sql for table, sql in made if not (sql.startswith("CREATE TABLE") and table.startswith(virtual))]
        return None
    for statement in known[steps]:
        raw.execute(statement)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    raw.executemany("INSERT INTO harken_schema VALUES (?, ?)", [(n, now) for n in range(1, len(steps) + 1)])
    return None


migrations.migrate = migrate_by_heart


@pytest.fixture(scope="session", autouse=True)
def loop_key(tmp_path_factory):
    """Decisions of tests are signed with a key of theirs, also by what they start."""
    os.environ["HARKEN_LOOP_KEY"] = str(tmp_path_factory.mktemp("key") / "loop.key")


class Rude:
    """Scores a sentence by its rude words."""

    id = "rude/1"

    def rate(self, text):
        return -float(text.count("damn"))


@pytest.fixture
def files(tmp_path):
    """Prompts name a word; good answers repeat it, bad ones name another. Six labelers. A path for each of trials.FILES."""
    import random

    from trials import WORDS, write
    rng = random.Random(0)
    prompts = [f"Say {a} {b}." for a in WORDS for b in WORDS]
    rng.shuffle(prompts)

    def ranking(i, p):
        good, bad = p[4:-1], " ".join(rng.sample(WORDS, 3))
        return {"prompt": p, "completions": [bad, good, bad, good], "ranks": [2, 1, 2, 1], "labeler": f"l{i % 6}"}

    class Files(dict):
        def __missing__(self, name):
            """The annotated corpus, made when a method asks for it: sentences, some of them rude."""
            assert name == "annotated", name
            from harken.loops.annotate import annotate
            lines = [" ".join(f"The {rng.choice(WORDS)} {rng.choice(['door', 'damn sea'])} is {w}." for w in WORDS)
                     for _ in range(60)]
            write(tmp_path / "corpus.jsonl", [{"id": f"d{i}", "text": line} for i, line in enumerate(lines)])
            annotate([tmp_path / "corpus.jsonl"], tmp_path / "annotated", Rude)
            self[name] = str(tmp_path / "annotated")
            return self[name]

    return Files({"demonstrations": write(tmp_path / "d.jsonl", [{"prompt": p, "completion": p[4:-1]} for p in prompts]),
            "comparisons": write(tmp_path / "c.jsonl", [ranking(i, p) for i, p in enumerate(prompts * 2)]),
            "prompts": write(tmp_path / "p.jsonl", [{"prompt": p} for p in prompts]),
            "examples": write(tmp_path / "e.jsonl", [{"prompt": f"Tell {a}.", "completion": a} for a in WORDS])})


@pytest.fixture
def real_data():
    if not DATA.is_dir():
        pytest.skip(f"real data is not at {DATA}; set HARKEN_DATA")
    return DATA


@pytest.fixture
def toy_engine():
    pytest.importorskip("torch")
    from harken.engines.attention import NAME
    from harken.engines.hf import Engine
    from harken.engines.pretrained import Loaded
    from harken.engines.toy import toy_model, toy_tokenizer
    from harken.text.template import Template

    def make(architecture="llama", attention=NAME, **options):
        loaded = Loaded(toy_model(architecture).eval(), Template(toy_tokenizer()), {})
        loaded.model.config._attn_implementation = attention
        return Engine(loaded, **options)

    return make


@pytest.fixture(scope="module")
def postgres():
    from studio_site import postgres_server
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    from studio_browser import chromium
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The studio behind a server of its own."""
    pytest.importorskip("uvicorn")
    from studio_browser import Served
    found = Served(tmp_path_factory.mktemp("studio"))
    yield found
    found.stop()


@pytest.fixture
def watched(browser, served):
    """A browser in which nothing may fail."""
    from studio_browser import Watched
    found = Watched(browser, served.url)
    yield found
    assert found.close() == []


@pytest.fixture
def troubled(browser, served):
    """Where the network fails on purpose: failed requests are no fault of the page's."""
    from studio_browser import Watched
    found = Watched(browser, served.url)
    yield found
    assert found.close(("Failed to load resource", "net::ERR", "Service Worker registration blocked")) == []
