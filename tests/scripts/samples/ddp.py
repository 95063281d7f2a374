# As torchrun starts it: one process for each GPU, gradients averaged in buckets.
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

dist.init_process_group("nccl")
rank = int(os.environ["LOCAL_RANK"])
assert torch.cuda.device_count() == int(os.environ["LOCAL_WORLD_SIZE"]), "a GPU for each rank"
torch.cuda.set_device(rank)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 10)).cuda()
model = DistributedDataParallel(model, device_ids=[rank])
optimizer = torch.optim.AdamW(model.parameters())
data = TensorDataset(torch.rand(4096, 256), torch.randint(0, 10, (4096,)))
loader = DataLoader(data, batch_size=16, sampler=DistributedSampler(data), num_workers=2)
for epoch in range(3):
    loader.sampler.set_epoch(epoch)
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x.cuda()), y.cuda())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    dist.barrier()
    if dist.get_rank() == 0:
        torch.save(model.module.state_dict(), "last.pt")
dist.destroy_process_group()
