"""A run that dies in the middle."""

import pytest

from utils.training import trainer


class Killed(Exception):
    """What ends it."""


def train_until(step: int, settings, dataset, folder) -> None:
    """Train until `step` is told of, and die there: the checkpoints of the steps before are kept."""

    def die(progress):
        if progress.step == step:
            raise Killed

    with pytest.raises(Killed):
        trainer.train(settings, dataset, folder, die)
