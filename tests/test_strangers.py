"""The ways of three newcomers, from the built wheel in an environment of its own, with what a shell and pip give them.

torch and the like are not installed anew for the first two: the environment sees this one's packages (`system-site-packages` by
a .pth file), Harken itself comes from the wheel. The third has nothing but the wheel's base.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)],
                          capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no wheel can be built here: {done.stderr[-300:]}")
    return next(folder.glob("harken-*.whl"))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory, wheel):
    """A fresh environment with the wheel; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, capture_output=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "theirs.pth").write_text(next(p for p in sys.path if p.endswith("site-packages")) + "\n")
    return folder


@pytest.fixture
def shell(prefix, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{prefix / 'bin'}{os.pathsep}{environment['PATH']}", "HF_HUB_OFFLINE": "1"}

    def run(line, status=0):
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == status, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr
    run.environment, run.folder = environment, tmp_path
    return run


def test_an_engineer_with_pairs_in_a_csv(shell):
    lines = ["question,good,bad"] + [f'"Is {i} a number?","Yes, {i} is one.","No idea."' for i in range(60)]
    (shell.folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    assert "site-packages" in shell("python -c 'import harken; print(harken.__file__)'")
    train = "harken train dpo --model toy --data pairs.csv --field prompt=question --field chosen=good --field rejected=bad"
    out = shell(f"{train} --eval-every 2 --patience 3 --out runs/dpo")
    assert "heldout_accuracy" in out
    (shell.folder / "new.jsonl").write_text('{"prompt": "Is 7 a number?"}\n')
    shell("harken sample --model runs/dpo --prompts new.jsonl --max-tokens 8 --out s.jsonl")
    shell("harken report runs/dpo --out report.html")
    assert "<html" in (shell.folder / "report.html").read_text()
    assert "Did you mean --learning-rate?" in shell(f"{train} --lr 1 --out x", 2)


def test_a_researcher_with_a_reward_and_three_seeds(shell):
    (shell.folder / "my_lab").mkdir()
    (shell.folder / "my_lab/score.py").write_text(
        "def exact(prompts, completions, answer):\n"
        "    return [float(a in text) - len(text) / 100 for a, text in zip(answer, completions)]\n")
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(16)]
    (shell.folder / "maths.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (shell.folder / "sweep.yaml").write_text(
        "method: rloo\nout: runs/sweep\nseeds: 3\ngrid: {beta: [0.0, 0.05]}\n"
        "settings: {model: toy, data: maths.jsonl, field: prompt=question, reward: 'my_lab.score:exact', steps: 2,\n"
        "           max_tokens: 6}\n")
    assert shell("harken sweep sweep.yaml").count("n=3") >= 2
    shell("harken report runs/sweep/*/* --csv curves.csv --out report.html")
    page = (shell.folder / "report.html").read_text()
    assert "over 3 seeds" in page and "<polygon" in page


def test_a_lead_with_friends(shell):
    (shell.folder / "p").write_text("a long enough secret\n")
    (shell.folder / "prompts.csv").write_text("prompt\nSay hello.\nSay goodbye.\n")
    shell("harken users add ada --role lead --password-file p --db f.db")
    shell("harken ask prompts.csv --project words --kind demonstrate --db f.db")
    server = subprocess.Popen(["harken", "studio", "--host", "0.0.0.0", "--port", "0", "--db", "f.db"], cwd=shell.folder,
                              env=shell.environment, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[-1]
        assert re.match(r"http://(?!127\.|0\.0\.0\.0|localhost)", url) and urllib.request.urlopen(f"{url}/login").status == 200
        code = (f"from harken.studio.client import Client\nlead = Client({url!r}); lead.login('ada', 'a long enough secret')\n"
                "made = lead.call('POST', '/api/invitations', {'uses': 5})\nprint(made['url'])\n"
                f"friend = Client({url!r}); friend.join(made['token'], 'bob', 'another long secret')\n"
                "task = friend.next(1)['tasks'][0]\nfriend.submit(task, {'text': 'Hello there.'}, seconds=3)\n")
        (shell.folder / "friends.py").write_text(code)
        assert f"{url}/join#" in shell("python friends.py")
    finally:
        server.terminate()
        server.wait()
    shell("harken export demonstrations --out answers.csv --db f.db")
    assert "Hello there." in (shell.folder / "answers.csv").read_text()
