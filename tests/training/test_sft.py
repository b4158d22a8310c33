"""What our trainer leaves out of TRL's step: the losses are TRL's; unused logits are not made."""

import probes
import pytest
import torch
from trl import SFTTrainer

from utils.settings import preset, with_values
from utils.training.checkpoints import Store
from utils.training.sft import IGNORED
from utils.training.trainer import make_trainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trainer(tiny_base, phantom_dataset, tmp_path_factory):
    settings = with_values(preset("demo").training, {"base": str(tiny_base), "batch_size": 3})
    folder = tmp_path_factory.mktemp("sft")
    return make_trainer(settings, phantom_dataset, Store(folder / "kept", folder, 1), probes.NONE)


@pytest.fixture
def batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


@pytest.mark.parametrize("of_several", [None, torch.tensor(500)], ids=["one batch", "of several"])
def test_losses_and_gradients_are_those_of_trl(trainer, batch, of_several):
    def gradients(way):
        trainer.model.zero_grad()
        loss = way(trainer, trainer.model, dict(batch), num_items_in_batch=of_several)
        loss.backward()
        found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
        return loss.item(), found

    def by_trl(*given, **named):
        trainer.compute_loss_func = None
        return SFTTrainer.compute_loss(*given, **named)

    ours = type(trainer).compute_loss
    (loss, found), own_function = gradients(ours), trainer.compute_loss_func
    expected, of_trl = gradients(by_trl)
    trainer.compute_loss_func = own_function
    assert loss == pytest.approx(expected, rel=1e-6)
    assert set(found) == set(of_trl) and any(each.abs().sum() > 0 for each in found.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, of_trl[name], rtol=1e-4, atol=1e-7)


def test_the_head_sees_only_positions_before_a_token_of_an_answer(trainer, batch):
    seen = []
    head = trainer.model.get_base_model().lm_head
    hook = head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
    trainer.compute_loss(trainer.model, dict(batch))
    hook.remove()
    ((studies, positions, _),) = seen
    answers = batch["labels"] != IGNORED
    assert studies == 3 and answers.sum(1).max() <= positions <= answers.any(0).sum()
    assert positions < batch["input_ids"].shape[1] / 2
