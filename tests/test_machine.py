"""Where it runs: the folders and secrets of Colab and Kaggle, by stand-ins for their modules; the GPUs."""

import json
import sys
import types
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from utils import settings
from utils.models.bases import computes_or_stop
from utils.run import disk, machine, workspace
from utils.run.machine import T4, secret
from utils.run.workspace import STEPS, StepError, Workspace, open_workspace


@pytest.fixture
def place(monkeypatch, tmp_path):
    """The folder that stands for a session's disks."""
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "COLAB_DISK", tmp_path / "content")
    monkeypatch.setattr(machine, "DRIVE", tmp_path / "content" / "drive" / "MyDrive")
    for name, folder in {"OUTPUT": "working", "INPUT": "input", "DISK": "temp"}.items():
        monkeypatch.setattr(machine, f"KAGGLE_{name}", tmp_path / folder)
    yield tmp_path
    for name in ("google", "google.colab", "google.colab.userdata", "kaggle_secrets"):
        sys.modules.pop(name, None)


@pytest.fixture
def colab(place, monkeypatch):
    """The folder that stands for Colab's disk, with the stand-in for `google.colab`."""
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.syspath_prepend(Path(__file__).parent / "colab")
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.")]:
        monkeypatch.delitem(sys.modules, name)
    answers = {"GRANTED": "granted", "REFUSED": "no access", "LATE": "no page", "BROKEN": "broken"}
    monkeypatch.setenv("COLAB_SECRETS", json.dumps(answers))
    return place / "content"


@pytest.fixture
def kaggle(place, monkeypatch):
    """The folder that stands for /kaggle, with the stand-in for `kaggle_secrets`; its image is Colab's."""
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "token")
    monkeypatch.syspath_prepend(Path(__file__).parent / "kaggle")
    answers = {"GRANTED": "granted", "BROKEN": "broken", "OFF": "no internet"}
    monkeypatch.setenv("KAGGLE_SECRETS", json.dumps(answers))
    return place


# Folders


def test_in_colab_a_workspace_lies_on_drive_and_its_data_does_not(colab):
    machine.DRIVE.mkdir(parents=True)
    run = open_workspace(preset="t4")
    assert run.root == colab / "drive/MyDrive/xray_reports/t4" and run.root.is_dir()
    assert run.data == colab / "xray_data/t4"


def test_in_colab_without_drive_a_workspace_lies_on_the_sessions_disk(colab):
    assert open_workspace(preset="demo").root == colab / "xray_reports/demo"


def test_on_kaggle_a_workspace_lies_in_the_output_and_its_data_and_scratch_do_not(kaggle):
    assert machine.in_kaggle() and not machine.in_colab()
    run = open_workspace(preset="t4")
    assert run.root == kaggle / "working/xray_reports/t4" and run.root.is_dir()
    assert run.data == kaggle / "temp/xray_data/t4"
    assert run.scratch == kaggle / "temp/xray_scratch/t4/default"


def saved(version: Path, *steps: str) -> Workspace:
    """The output of a version in which `steps` were finished."""
    run = Workspace(version / "xray_reports" / "demo")
    for step in steps:
        left = disk.write_text(run.folder(step) / "left.txt", version.name)
        run.finish(step, settings={}, outputs=[left])
    return run


def test_on_kaggle_a_run_goes_on_from_the_output_of_an_attached_version(kaggle, capsys):
    saved(kaggle / "input/notebooks/me/one", "regions")
    run = open_workspace(preset="demo")
    assert run.require("regions") and run.root == kaggle / "working/xray_reports/demo"
    assert "Copying the results of the attached version" in capsys.readouterr().out
    saved(kaggle / "input/two", "regions", "dataset")  # attached later: what is here already stays
    assert open_workspace(preset="demo").manifest("dataset") is None and capsys.readouterr().out == ""


def test_of_two_attached_versions_the_latest_one_is_taken_with_its_unfinished_step(kaggle, monkeypatch):
    second, first = (kaggle / "input/notebooks/me" / name for name in ("b", "a"))
    moment = saved(first, "regions").manifest("regions")["finished"]
    run = saved(second, "regions")
    manifest = run.manifest("regions") | {"finished": moment}
    disk.write_json(run.folder("regions") / "manifest.json", manifest)
    disk.write_text(run.folder("training") / "checkpoints" / "checkpoint-20" / "weights", "half way")
    opened = open_workspace(preset="demo")
    assert (opened.folder("training") / "checkpoints/checkpoint-20/weights").read_text() == "half way"
    disk.write_json(
        Workspace(first / "xray_reports/demo").folder("regions") / "manifest.json",
        manifest | {"finished": "2999-01-01T00:00:00+00:00"},
    )
    monkeypatch.setattr(machine, "KAGGLE_OUTPUT", kaggle / "next session")
    assert (open_workspace(preset="demo").folder("regions") / "left.txt").read_text() == "a"


def test_a_version_of_another_size_is_not_taken(kaggle):
    saved(kaggle / "input/one", *STEPS)
    assert set(workspace.status(open_workspace(preset="t4")).values()) == {"not done"}


def test_on_kaggle_a_version_of_another_size_is_named_with_the_value_to_set(kaggle, monkeypatch):
    saved(kaggle / "input/notebooks/me/one", "regions", "dataset")
    with pytest.raises(StepError, match='at size demo it is done: to go on with that, set PRESET to "demo"'):
        open_workspace(preset="t4").require("dataset")


def test_an_opened_workspace_without_a_step_still_takes_an_attached_version(kaggle):
    assert open_workspace(preset="demo").manifest("regions") is None
    saved(kaggle / "input/notebooks/me/one", "regions")
    assert open_workspace(preset="demo").require("regions")


# Secrets


@pytest.mark.parametrize("where", ["colab", "kaggle"])
def test_a_secret_comes_from_the_environment_first(where, request, monkeypatch):
    request.getfixturevalue(where)
    assert secret("GRANTED") == "granted"
    monkeypatch.setenv("GRANTED", "from the environment")
    assert secret("GRANTED") == "from the environment"


@pytest.mark.parametrize("name", ["MISSING", "REFUSED", "LATE"])
def test_a_secret_that_colab_does_not_give_is_none(colab, name):
    assert secret(name) is None


def test_a_secret_that_is_not_attached_on_kaggle_is_none(kaggle, monkeypatch):
    assert secret("MISSING") is None
    monkeypatch.delenv("KAGGLE_USER_SECRETS_TOKEN")
    assert secret("GRANTED") is None


def test_without_internet_kaggles_secrets_say_what_to_switch_on(kaggle):
    with pytest.raises(ConnectionError, match=r"OFF could not be read\. On Kaggle, switch the internet on"):
        secret("OFF")


@pytest.mark.parametrize("where", ["colab", "kaggle"])
def test_a_failure_is_not_taken_for_a_missing_secret(where, request):
    request.getfixturevalue(where)
    with pytest.raises(Exception, match=r"BROKEN|Internal error"):
        secret("BROKEN")


def test_a_secret_elsewhere_is_none(place, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert secret("OPENAI_API_KEY") is None


# GPUs


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes torch report so many GPUs with a name, a memory in GiB and a capability."""

    def report(name: str, memory: float, major: int, count: int = 1) -> None:
        found = types.SimpleNamespace(name=name, total_memory=int(memory * 2**30), major=major)
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: found)

    return report


@pytest.mark.parametrize(
    ("name", "memory", "major", "known"),
    [
        ("Tesla T4", 14.74, 7, "T4"),
        ("NVIDIA L4", 22.5, 8, "L4"),
        ("NVIDIA A100-SXM4-40GB", 39.39, 8, "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", 79.25, 8, "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", 79.1, 9, "H100"),
    ],
)
def test_a_card_of_the_list_is_known_by_its_name_and_memory(gpu, name, memory, major, known):
    gpu(name, memory, major)
    card = machine.card()
    assert (card.name, card.memory) == (known, pytest.approx(memory)) and card.peak_16
    assert card.bf16 == (major >= 8)


@pytest.mark.parametrize(
    ("name", "memory", "major"),
    [
        ("NVIDIA L40S", 44.4, 8),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75, 8),
        ("NVIDIA RTX A1000", 8, 8),
        ("NVIDIA H100 PCIe", 79.1, 9),
        ("Tesla P100-PCIE-16GB", 15.9, 6),
    ],
)
def test_another_card_is_what_torch_says_and_its_speed_is_not_known(gpu, name, memory, major):
    gpu(name, memory, major)
    card = machine.card()
    assert (card.name, card.bf16, card.peak_16, card.bandwidth) == (name, major >= 8, None, None)
    assert card.memory == pytest.approx(memory)


def test_plans_are_for_the_cards_found_or_for_a_t4(gpu, monkeypatch):
    gpu("Tesla T4", 14.74, 7, count=2)
    card, number = machine.planned_on()
    assert (
        machine.cards_in_words(card, number) == "2 x T4"
        and machine.cards_in_words(machine.CARDS[1], 1) == "an L4"
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert machine.planned_on() == (T4, 1) and machine.card() is None


def test_the_default_precision_follows_the_card(gpu, place):
    assert settings.preset("t4").training.precision == "fp16"
    gpu("Tesla T4", 14.74, 7)
    assert settings.preset("t4").training.precision == "fp16"
    gpu("NVIDIA RTX 4090", 23.6, 8)
    assert settings.preset("t4").training.precision == "bf16"
    assert settings.preset("demo").training.precision == "fp32"


def test_kaggles_sessions_are_longer(kaggle):
    chosen = settings.preset("t4")
    assert chosen.training.hours == chosen.judge.hours == 11


def test_bf16_on_a_card_without_it_is_refused_in_a_sentence(gpu):
    computes_or_stop("bf16", None)  # a processor
    gpu("Tesla T4", 14.74, 7)
    with pytest.raises(StepError, match=r"The GPU \(T4\) has no bf16: train with precision = fp16 or fp32"):
        computes_or_stop("bf16", machine.card())
    computes_or_stop("fp16", machine.card())


def test_a_preset_follows_the_machine(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert (machine.device(), machine.default_preset()) == ("cuda", "t4")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (machine.device(), machine.default_preset()) == ("cpu", "demo")


@pytest.mark.parametrize(
    ("cells", "worked"),
    [
        ((), 5),  # the cell that imports the project still runs
        (("advance(20)",), 25),
        (("advance(20)", "advance(2)"), 27),
        (("advance(20); no_such_name",), 25),  # a cell that fails has worked, too
        (("advance(", "advance(20)"), 25),  # one that is no Python has not
        (("raise KeyboardInterrupt", "%time advance(20)"), 25),
        (("advance(20); said.append(clock.seconds())",), 25),
    ],
)
def test_a_session_works_while_its_cells_run_and_not_between_them(monkeypatch, capsys, cells, worked):
    now, said = [1000.0], []
    monkeypatch.setattr(machine.time, "monotonic", lambda: now[0])
    shell, first = InteractiveShell(), ["now[0] += 100", "clock = Clock(shell); now[0] += 5"]
    shell.user_ns.update(now=now, said=said, Clock=machine.Clock, shell=shell)
    shell.user_ns["advance"] = lambda seconds: now.__setitem__(0, now[0] + seconds)
    for cell in (*first, *cells):
        shell.run_cell(cell)
        now[0] += 3600  # read, before the next cell is run
    assert shell.user_ns["clock"].seconds() == worked
    assert said in ([], [worked])


def test_outside_a_notebook_a_process_works_all_the_time(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(machine.time, "monotonic", lambda: now[0])
    clock = machine.Clock()
    now[0] += 90
    assert clock.seconds() == 90
