# accelerate: an own loop over a GPT-2 in bfloat16, gradients gathered over two micro-batches.
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup


class Text(Dataset):
    def __len__(self):
        return 100_000

    def __getitem__(self, i):
        return torch.randint(50257, (256,))


def main():
    accelerator = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2)
    model = GPT2LMHeadModel(GPT2Config(n_layer=6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    loader = DataLoader(Text(), batch_size=8, shuffle=True, num_workers=2)
    schedule = get_cosine_schedule_with_warmup(optimizer, 100, 10_000)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    for epoch in range(2):
        model.train()
        for tokens in loader:
            with accelerator.accumulate(model):
                loss = model(input_ids=tokens, labels=tokens).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        accelerator.print(f"epoch {epoch}: {accelerator.gather(loss).mean().item():.3f}")
        accelerator.save_state(f"checkpoints/{epoch}")
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
