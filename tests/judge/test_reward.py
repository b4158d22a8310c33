"""The offline judge as a reward of TRL."""

import json
import re
import shutil

import pytest
import torch
from conftest import ROOT

from utils.judge import JudgeError, judge_pairs, offline_judge_reward

EXAMPLE = (ROOT / "docs" / "grpo.md").read_text(encoding="utf-8")
COLUMNS = {
    "lung": ["Lungs are clear.", "Left effusion.", "", None],
    "heart": ["Heart size is normal.", "", "  ", ""],
    "bone": ["", "No fracture.", "", ""],
    "trainer_state": None,
    "prompts": [[{"role": "user", "content": "Findings?"}]] * 4,
}
REPORTS = ["lung: Lungs are clear.\nheart: Cardiomegaly.", "bone: No fracture.", "lung: Left effusion.", ""]


def test_a_reward_is_the_mean_over_the_regions_that_a_study_mentions():
    wrong = judge_pairs([("Heart size is normal.", "Cardiomegaly.")])[0].score
    assert offline_judge_reward(REPORTS, **COLUMNS) == [(1 + wrong) / 2, 0.5, None, None]


def test_conversations_are_read_as_texts_are():
    talks = [[{"role": "assistant", "content": report}] for report in REPORTS]
    assert offline_judge_reward(talks, **COLUMNS) == offline_judge_reward(REPORTS, **COLUMNS)


def test_without_references_there_is_no_reward():
    with pytest.raises(JudgeError, match="columns lung, heart, mediastinal, bone"):
        offline_judge_reward(REPORTS, ground_truth=REPORTS)


@pytest.mark.slow
def test_three_steps_of_the_example_change_the_adapter(tmp_path, phantom_folder):
    from peft import get_peft_model
    from safetensors.torch import load_file

    from utils.models.loading import load_model, lora_config
    from utils.settings import TrainingSettings

    run = tmp_path / "run"
    shutil.copytree(phantom_folder, run / "dataset")
    adapter = run / "training" / "default" / "adapter"
    reading = {"base": "demo", "image_tokens": "base", "precision": "fp32", "views": 2}
    torch.manual_seed(0)
    get_peft_model(load_model("demo", "base", "fp32"), lora_config(TrainingSettings())).save_pretrained(
        adapter
    )
    (adapter / "reading.json").write_text(json.dumps(reading))

    (code,) = re.findall(r"^```python\n(.*?)^```$", EXAMPLE, re.M | re.S)
    for written, here in (
        ('"runs/demo"', repr(str(run))),
        ("max_steps=150", "max_steps=3"),
        ("max_completion_length=160", "max_completion_length=48"),
    ):
        assert written in code
        code = code.replace(written, here)
    names = {}
    exec(compile(code, "docs/grpo.md", "exec"), names)

    log = [row for row in names["trainer"].state.log_history if "reward" in row]
    assert [row["step"] for row in log] == [1, 2, 3]
    assert all(0 <= row["rewards/offline_judge_reward/mean"] <= 1 for row in log)
    assert any(row["reward_std"] > 0 for row in log)  # else there is nothing to learn from
    before, after = (
        load_file(folder / "adapter_model.safetensors") for folder in (adapter, run / "grpo" / "adapter")
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
