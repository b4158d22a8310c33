"""Fine-tuning: its `plan`, how fast cards are (`speeds`), the findings probe (`probing`), the `trainer`, what
it shows meanwhile (`callbacks`), and its `checkpoints`."""

from .probing import on_validation, run_probe
from .trainer import FREE, finish, noted_settings, train, train_on_all

__all__ = ["FREE", "finish", "noted_settings", "on_validation", "run_probe", "train", "train_on_all"]
