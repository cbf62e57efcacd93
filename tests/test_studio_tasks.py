"""Every kind of task, the known and the dropped in, from a project to an export, by the trial it declares itself."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

import harken
from harken.store.rows import judgment_row, prompt_key
from harken.store.schema import judgments
from harken.studio.client import Client
from harken.studio.pages.frame import ASSETS
from harken.studio.pages.label import label_modules
from harken.studio.tasks import KINDS, TASKS
from harken.studio.work.exports import WHATS
from harken.studio.work.forms import default_form
from harken.studio.work.stored import load
from studio_browser import Watched, stored
from studio_site import new_site, open_template

GUIDE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
GRADE = re.findall(r"```python\n(\"\"\"Grade.*?)```", GUIDE, re.S)[0]
GRADE_FORM = re.findall(r"```js\n(// Grade.*?)```", GUIDE, re.S)[0]
OWN_FIELD = GRADE.replace("integer(1, 7)", 'integer(1, form["top"])').replace("    def answer(", """\
    fields = {"top": integer(2, 100)}

    def form(self):
        return {"top": 7}

    def answer(""")


PAYLOADS = {"ranking": {"completions", "ranks"}, "demonstration": {"completion"}, "edit": {"completion"},
            "rating": {"completion", "score"}, "thumb": {"completion", "label"},
            "questions": {"completions", "questions", "said"}}
"""What a judgment's payload holds at least, by its kind, as its docstring says."""


def copy_with_grade(folder, task=GRADE):
    """A copy of the package with one task more; the environment in which it is imported."""
    shutil.copytree(Path(harken.__file__).parent, folder / "harken", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "harken" / "studio" / "tasks" / "grade.py").write_text(task, encoding="utf-8")
    (folder / "harken" / "studio" / "static" / "forms" / "grade.js").write_text(GRADE_FORM, encoding="utf-8")
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with new_site(tmp_path_factory.mktemp("tasks")) as site:
        yield site


def answers_of(db, project):
    with db.link.reading() as tx:
        return load(tx, project)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_goes_from_a_project_to_an_export(site, kind):
    trial = TASKS[kind].trial
    assert trial.export in WHATS
    project = site.lead.create_project(f"trial of {kind}", kind)
    form = project["form"]
    assert form["kind"] == kind and all(form[name] is not None for name in TASKS[kind].fields)
    assert site.lead.add_items(project["id"], [trial.item]) == 1
    (task,) = site.ana.next(project["id"])["tasks"]
    assert task["kind"] == kind and TASKS[kind].completions[0] <= len(task["completions"]) <= TASKS[kind].completions[1]
    receipt = site.ana.submit(task, trial.answer, seconds=2.5)
    assert {k: receipt["answer"][k] for k in trial.answer} == dict(trial.answer) and receipt["counted"]
    judgment = answers_of(site.db, project["id"])[0].judgment
    assert TASKS[kind].record == judgment.kind
    lacks = PAYLOADS.get(judgment.kind, set()) - judgment.payload.keys()
    assert not lacks, f"{kind}.read() leaves out {lacks}, which a {judgment.kind} holds (core.records.Judgment)"
    (row,) = site.lead.export(project["id"], trial.export)
    assert {k: row.get(k) for k in trial.row} == dict(trial.row) and row["form_version"] == form["version"]
    assert site.ana.undo(project["id"])["task"]["draft"]["answer"].items() >= trial.answer.items()
    assert site.lead.export(project["id"], trial.export) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_answer_imported_and_submitted_has_one_hash(site, tmp_path, kind):
    project = site.lead.create_project(f"hash of {kind}", kind)["id"]
    site.lead.add_items(project, [TASKS[kind].trial.item])
    site.ana.submit(site.ana.next(project)["tasks"][0], TASKS[kind].trial.answer, seconds=3)  # read back as 3.0
    (answer,) = answers_of(site.db, project)
    assert answer.judgment in list(site.db.judgments())
    with site.db.link.reading() as tx:
        submitted = tx.execute(select(judgments).where(judgments.c.seq == answer.seq)).one()
    with open_template(tmp_path) as other:
        other.add_judgments([answer.judgment])
        with other.link.reading() as tx:
            (imported,) = tx.execute(select(judgments)).all()
    assert imported.content == submitted.content and imported.prompt_key == submitted.prompt_key
    assert imported.shown_order == submitted.shown_order
    changed = judgment_row(prompt_key(answer.judgment.prompt), answer.judgment.kind, answer.judgment.payload, labeler="bo")
    assert changed["content"] != submitted.content


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_has_its_script_and_its_place_on_the_pages(kind):
    assert f"forms/{kind}.js" in label_modules()
    assert "export default class" in ASSETS.files[f"forms/{kind}.js"].read_text(encoding="utf-8")
    assert TASKS[kind].title and TASKS[kind].hint


def test_a_task_dropped_into_the_folder_passes_all_of_these(tmp_path):
    """Two files and nothing else, in a copy of the package: it is found, and it passes every test of this file."""
    if "grade" in KINDS:
        pytest.skip("this is the copy")
    env = copy_with_grade(tmp_path, OWN_FIELD)
    plain = [word for plugin in ("polgrad", "schemathesis", "cacheprovider") for word in ("-p", f"no:{plugin}")]
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "-o", "addopts=", *plain, "-k", "grade", __file__],
                           env=env, capture_output=True, text=True, cwd=tmp_path)
    assert tests.returncode == 0 and "3 passed" in tests.stdout, tests.stdout
    code = ("import json; from harken.studio.app import API; from harken.studio.work.forms import default_form; "
            "print(json.dumps([API.openapi(), default_form('compare')['version']]))")
    printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    description, version = json.loads(printed.stdout)
    new = description["paths"]["/api/projects"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    kinds = new["properties"]["kind"]["enum"]
    assert sorted(kinds) == sorted([*KINDS, "grade"])
    assert version == default_form("compare")["version"], "stored forms of the other kinds stay valid"
    words = subprocess.run([sys.executable, "-m", "harken", "ask", "--help"], env=env, capture_output=True, text=True, check=True)
    assert ",".join(kinds) in words.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.slow
def test_the_task_of_the_guide_is_answered_in_a_browser(tmp_path, browser):
    """Its script as it stands in CONTRIBUTING.md: by keyboard, stored and exported as on screen."""
    env = copy_with_grade(tmp_path)
    server = subprocess.Popen([sys.executable, "-m", "harken", "studio", "--db", str(tmp_path / "f.db"), "--port", "0"], env=env,
                              stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[-1]
        studio = Client(url)
        studio.me()
        project = studio.create_project("grades", "grade")["id"]
        studio.add_items(project, [{"prompt": "Name a colour.", "completions": ["Blue."]}])
        watched = Watched(browser, url)
        page = watched.label(project)
        page.keyboard.press("6")
        page.keyboard.press("Enter")
        stored(page, "Stored: grade 6")
        (row,) = studio.export(project, "ratings")
        assert (row["completion"], row["score"]) == ("Blue.", 6)
        assert watched.close() == []
    finally:
        server.terminate()
        server.wait(20)
