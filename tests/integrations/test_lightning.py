"""Lightning's Trainer: masks in training, none in validation, checkpoints of the stock model."""

import logging
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dropout_policies as dp
from tests.integrations.small_model import (
    Classifier,
    check_evaluation,
    check_masks,
    data,
    outputs_in_training,
)

lightning = pytest.importorskip("lightning")


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Classifier()
        self.calls, self.validated = {}, []

    def training_step(self, batch, _):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.model(x), y)

    def validation_step(self, batch, _):
        self.validated.append((batch[0], self.model(batch[0]), self.model(batch[0])))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class KeepCalls(lightning.Callback):
    """Keeps in each checkpoint how many calls the layers under a policy have had."""

    def on_save_checkpoint(self, _, module, checkpoint):
        checkpoint["calls"] = {n: m.calls for n, m in module.named_modules() if hasattr(m, "calls")}

    def on_load_checkpoint(self, _, module, checkpoint):
        for name, calls in checkpoint["calls"].items():
            module.get_submodule(name).calls = calls


def loader(batch=8):
    return DataLoader(TensorDataset(*data()), batch_size=batch)


def trainer(folder, **arguments):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    defaults = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "num_sanity_val_steps": 1}
    return lightning.Trainer(
        **(defaults | arguments),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def test_masks_are_new_in_training_and_absent_in_validation(tmp_path):
    module = Module()
    dp.apply(module, "zaremba", rate=0.5)
    outputs = outputs_in_training(module.model)
    fit = trainer(tmp_path)
    with dp.record(module) as masks:
        fit.fit(module, loader(), loader())
    check_masks(masks["model.rnn"], outputs, calls=6)
    assert len(module.validated) == 7, "one sanity check and two epochs"
    assert all(torch.equal(once, again) for _, once, again in module.validated)
    fit.save_checkpoint(tmp_path / "model.ckpt")
    saved = torch.load(tmp_path / "model.ckpt", weights_only=False)["state_dict"]
    check_evaluation(module.model, {k.removeprefix("model."): v for k, v in saved.items()})


def test_a_resumed_run_goes_on_with_the_masks_and_weights_of_an_uninterrupted_one(tmp_path):
    def module():
        torch.manual_seed(0)
        made = Module()
        dp.apply(made, "zaremba", rate=0.5, seed=3)
        return made

    whole, first, second = module(), module(), module()
    trainer(tmp_path, max_epochs=4).fit(whole, loader())
    begun = trainer(tmp_path, max_epochs=2, callbacks=[KeepCalls()])
    begun.fit(first, loader())
    begun.save_checkpoint(tmp_path / "begun.ckpt")
    resumed = trainer(tmp_path, max_epochs=4, callbacks=[KeepCalls()])
    resumed.fit(second, loader(), ckpt_path=tmp_path / "begun.ckpt", weights_only=False)
    assert second.model.rnn.calls == whole.model.rnn.calls == 12
    assert all(
        torch.equal(a, b) for a, b in zip(second.parameters(), whole.parameters(), strict=True)
    )
