"""Gradient checkpointing layer by layer: in the true trainer, with NF4 and dropout, and out of memory."""

import probes
import pytest
import torch
from killed import train_until
from safetensors.torch import load_file

from utils.run.workspace import StepError
from utils.settings import preset, with_values
from utils.training import trainer as training
from utils.training.checkpoints import Store

pytestmark = pytest.mark.slow

FEW = {
    "max_steps": 2,
    "batch_size": 1,
    "accumulation": 2,
    "lora_dropout": 0.3,
    "evaluate_every": 1,
    "evaluate_on": 1,
    "samples": 0,
    "save_every": 1,
    "choose": "last",
}


@pytest.fixture(scope="module")
def settings(tiny_base):
    return with_values(preset("demo").training, {**FEW, "base": str(tiny_base)})


@pytest.fixture
def trainer(settings, phantom_dataset, tmp_path):
    def make(**changes):
        chosen = with_values(settings, changes)
        store = Store(tmp_path / "checkpoints", tmp_path / "scratch", 2)
        return training.make_trainer(chosen, phantom_dataset, store, probes.NONE)

    return make


def layers(made):
    return made.model.get_decoder().layers


def learnt(made):
    """The losses of a run and the adapter that it ends with."""
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    return losses, {name: p.detach() for name, p in made.model.named_parameters() if p.requires_grad}


def same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    for name, weights in one[1].items():
        torch.testing.assert_close(weights, other[1][name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def all_recomputed(settings, phantom_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    store = Store(folder / "checkpoints", folder / "scratch", 2)
    chosen = with_values(settings, {"recompute": "all"})
    return learnt(training.make_trainer(chosen, phantom_dataset, store, probes.NONE))


@pytest.mark.parametrize("recompute", ["all", "1", "0", "as needed"])
def test_as_many_layers_are_computed_again_as_asked_and_the_losses_are_the_same(
    trainer, all_recomputed, recompute
):
    made = trainer(recompute=recompute)
    passes, seen = [0] * len(layers(made)), []
    for number, layer in enumerate(layers(made)):

        def count(module, *_, number=number):
            passes[number] += module.training

        layer.self_attn.register_forward_hook(count)
    tower = next(m for name, m in made.model.named_modules() if name.endswith("vision_tower"))
    tower.register_forward_hook(lambda *args: seen.append(args[-1].last_hidden_state.requires_grad))
    same(learnt(made), all_recomputed)
    again = {"all": len(passes), "as needed": 0}.get(recompute, recompute)  # a small model fits a processor
    batches = FEW["max_steps"] * FEW["accumulation"]
    assert passes == [batches * (2 if number < int(again) else 1) for number in range(len(passes))]
    assert seen and not any(seen)  # no gradient goes through the vision tower


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_batch_out_of_memory_is_taken_again_with_more_layers_recomputed(
    trainer, all_recomputed, capsys, where
):
    made = trainer(recompute="0")
    enough, failed, passes = len(layers(made)) - 1, [], []

    def fail(*_):
        if made.recomputed < enough:
            failed.append(made.recomputed)
            raise torch.OutOfMemoryError("out of memory")

    def after_the_first(module, args, output):
        passes.append(module.training)
        if module.training and sum(passes) > 1:  # the first batch of the step has left its gradients
            if where == "backward" and output.requires_grad:
                output.register_hook(fail)  # by then the later layers have their gradients
            elif where == "forward":
                fail()

    layers(made)[0].register_forward_hook(after_the_first)
    same(learnt(made), all_recomputed)
    assert failed == sorted(set(failed)) and failed[0] == 0 and made.recomputed >= enough
    said = f"{made.recomputed} of {len(layers(made))} layers are recomputed from here on"
    assert capsys.readouterr().out.count(said) == 1


def test_where_all_layers_recompute_already_the_advice_is_said(trainer):
    made = trainer(recompute="all", batch_size=2, accumulation=1)

    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    layers(made)[-1].register_forward_hook(fail)
    with pytest.raises(StepError, match="and set batch_size to 1 and accumulation to 2"):
        made.train()


def test_a_run_goes_on_with_another_number_of_layers(settings, phantom_dataset, tmp_path, all_recomputed):
    train_until(2, with_values(settings, {"recompute": "all"}), phantom_dataset, tmp_path)
    kept = with_values(settings, {"recompute": "0"})
    log = training.train(kept, phantom_dataset, tmp_path).log
    losses = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    saved = {name.replace(".default", ""): weights for name, weights in all_recomputed[1].items()}
    same((log["loss"].dropna().tolist(), losses), (all_recomputed[0], saved))
