# A model that is updated by hand, as in first lessons: there is no torch.optim.
import torch

w = torch.randn(1000, 10, device="cuda", requires_grad=True)
for step in range(1000):
    x = torch.randn(64, 1000, device="cuda")
    loss = (x @ w).pow(2).mean()
    loss.backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
        w.grad = None
    if step % 100 == 0:
        print(step, loss.item())
