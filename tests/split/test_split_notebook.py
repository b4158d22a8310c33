"""Notebook 01 with a language model behind a real HTTP server: the workshop, the cost, the key nowhere."""

import json
import os
import subprocess
import sys

import loopback
import pytest
from conftest import ROOT

from utils.split.offline import split_offline

KEY = "sk-secret-0123456789"


def behave(text, turn, body):
    """Right, save that every seventh report has a sentence made up, and every eleventh has no answer."""
    if len(text) % 11 == 0:
        return "I cannot help with that."
    found = split_offline(text)
    return json.dumps(found | {"others": found["others"] + " Large tumour."} if len(text) % 7 == 0 else found)


@pytest.mark.slow
def test_notebook_01_compares_two_prompts_within_a_budget_and_shows_no_key(shared, tmp_path):
    server = loopback.start(behave)
    server.usage = {"prompt_tokens": 600, "completion_tokens": 80, "total_tokens": 680}
    chosen = {"engine": "openai", "base_url": server.url, "other_prompt": "split_short", "examples": 2}
    values = {"PRESET": "t4", "WORKSPACE": tmp_path / "run", "DATA": shared / "iu_xray"}
    values["GOLD_ORIGINALS"] = shared / "iu_xray" / "r2gen_annotation.json"
    flags = [part for name, value in values.items() for part in ("-r", name, str(value))]
    flags += ["-y", json.dumps({"SETTINGS": chosen | {"gold_studies": 30}})]
    page = tmp_path / "page.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "01_region_split.ipynb", str(page)]
    try:
        done = subprocess.run(
            [*command, *flags],
            cwd=ROOT / "notebooks",
            env={**os.environ, "OPENAI_API_KEY": KEY},
            capture_output=True,
            text=True,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    shown = page.read_text()
    for words in ("send to gpt-4.1-mini", "of $2 for", "openai, split_short", "sentences repaired"):
        assert words in shown
    assert shown.count("data:image/png") >= 1
    manifest = json.loads((tmp_path / "run/regions/manifest.json").read_text())
    assert manifest["model"] == "gpt-4.1-mini" and manifest["spent"].startswith("$")
    count = manifest["split_offline_instead"]
    assert (
        count > 0 and f"{count} of 296 reports split by the offline engine instead of gpt-4.1-mini" in shown
    )
    prompts = {call["body"]["messages"][0]["content"] for call in server.calls}
    assert len(prompts) == 2 and sum("\nExample\n" in prompt for prompt in prompts) == 1
    assert any(call["authorization"] == f"Bearer {KEY}" for call in server.calls)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 4 and all(KEY.encode() not in path.read_bytes() for path in written)
    assert KEY not in done.stdout + done.stderr
