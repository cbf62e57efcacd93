"""OpenAI's JavaScript client: it sees what the Python one does, and its errors name the field."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

from serve_site import Served

SCRIPT = Path(__file__).with_name("openai_client.cjs")
NODE = shutil.which("node")


@pytest.mark.slow
def test_openais_javascript_client():
    """Where Node finds the package (NODE_PATH names the folder that `npm install openai` filled)."""
    if NODE is None or subprocess.run([NODE, "-e", 'require("openai")'], capture_output=True).returncode:
        pytest.skip("no Node here that has the package openai")
    site = Served(keys={"ada": "a" * 20})
    try:
        done = subprocess.run([NODE, str(SCRIPT), f"{site.url}/v1", "a" * 20], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        key = {"Authorization": "Bearer " + "a" * 20}
        own = site.chat(max_tokens=6, n=2, seed=1, headers=key)[1]
        assert found["texts"] == found["streamed"] == [c["message"]["content"] for c in own["choices"]]
        assert found["usage"] == found["streamed_usage"] == own["usage"] and found["tops"] == 2
        assert found["runner"] == found["texts"][0] and found["completion"].startswith("ab") and found["models"] == ["toy"]
        assert found["refused"] == {"tools": ["BadRequestError", 400, "tools"], "n": ["BadRequestError", 400, "n"],
                                    "model": ["NotFoundError", 404, "model"], "key": ["AuthenticationError", 401, None]}
        assert found["left"] and site.chat(max_tokens=1, headers=key)[0] == 200
    finally:
        site.stop()
