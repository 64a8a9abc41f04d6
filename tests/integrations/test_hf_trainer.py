"""Hugging Face's Trainer: masks in training, none in evaluation, `from_pretrained` without one."""

import pytest
import torch

import dropout_policies as dp
from tests.integrations.small_model import (
    Classifier,
    check_evaluation,
    check_masks,
    data,
    outputs_in_training,
)

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="Trainer needs accelerate")


class Config(transformers.PretrainedConfig):
    model_type = "small"


class Model(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.model = Classifier()
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, x, labels=None):
        logits = self.model(x)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Data(torch.utils.data.Dataset):
    def __init__(self):
        self.x, self.y = data()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.y[index]}


def arguments(folder):
    return transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        num_train_epochs=2,
        learning_rate=0.01,
        report_to="none",
        disable_tqdm=True,
        save_strategy="epoch",
        logging_strategy="no",
        use_cpu=True,
    )


def test_masks_are_new_in_training_and_absent_in_evaluation(tmp_path):
    model = Model(Config())
    dp.apply(model, "zaremba", rate=0.5)
    outputs = outputs_in_training(model.model)
    trainer = transformers.Trainer(
        model=model, args=arguments(tmp_path), train_dataset=Data(), eval_dataset=Data()
    )
    with dp.record(model) as masks:
        trainer.train()
    check_masks(masks["model.rnn"], outputs, calls=6)
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]

    predicted = torch.from_numpy(trainer.predict(Data()).predictions)
    stock = Model.from_pretrained(tmp_path / "checkpoint-6")
    assert type(stock.model.rnn) is torch.nn.LSTM
    check_evaluation(model.model, stock.model.state_dict())
    with torch.no_grad():
        x, _ = data()
        batches = [stock.eval()(part)["logits"] for part in x.split(8)]
    assert torch.equal(predicted, torch.cat(batches))


def test_a_saved_checkpoint_resumes_under_the_policy(tmp_path):
    model = Model(Config())
    dp.apply(model, "zaremba", rate=0.5)
    trainer = transformers.Trainer(model=model, args=arguments(tmp_path), train_dataset=Data())
    trainer.train()
    again = Model(Config())
    dp.apply(again, "zaremba", rate=0.5)
    outputs = outputs_in_training(again.model)
    resumed = transformers.Trainer(model=again, args=arguments(tmp_path), train_dataset=Data())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert len(outputs) == 3, "one of the two epochs is left"
    assert all((output == 0).any() for output in outputs)
