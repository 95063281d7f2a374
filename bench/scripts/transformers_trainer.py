# transformers: a BERT that is fine-tuned by the Trainer, with evaluation and a metric.
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


class Sentences(torch.utils.data.Dataset):
    def __init__(self, size, length=128, vocabulary=30522):
        self.size, self.length, self.vocabulary = size, length, vocabulary

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return {
            "input_ids": torch.randint(self.vocabulary, (self.length,)),
            "attention_mask": torch.ones(self.length, dtype=torch.long),
            "labels": torch.tensor(i % 2),
        }


def compute_metrics(prediction):
    guess = prediction.predictions.argmax(-1)
    return {"accuracy": float((guess == prediction.label_ids).mean())}


model = BertForSequenceClassification(BertConfig(num_hidden_layers=6, num_labels=2))
arguments = TrainingArguments(
    "out",
    per_device_train_batch_size=16,
    per_device_eval_batch_size=64,
    fp16=True,
    learning_rate=2e-5,
    warmup_steps=100,
    num_train_epochs=3,
    logging_steps=10,
    eval_strategy="epoch",
    save_strategy="epoch",
    load_best_model_at_end=True,
    report_to=[],
)
trainer = Trainer(
    model,
    arguments,
    train_dataset=Sentences(20_000),
    eval_dataset=Sentences(500),
    compute_metrics=compute_metrics,
)
trainer.train()
trainer.save_model("out/best")
