/** Learn: what is often got wrong, and questions to try. */

const en = {
  "learn.myths.title": "Often wrong",
  "learn.myths.what": "Sentences that you will meet. Decide first, then open.",
  "learn.myth.size": "“The MNIST network takes 403 KB.”",
  "learn.myth.size.right": "{count} parameters × 4 B = {bytes} B. That is {kilo} kB (of 1,000 "
    + "bytes) or **{kibi}** (of 1,024 bytes).",
  "learn.myth.grey": "“A grey image has no channel.”",
  "learn.myth.grey.right": "It has **one**: `(1, 28, 28)`. Only for drawing the one channel is "
    + "dropped: matplotlib wants `(H, W)` for grey, and `(H, W, C)` for colour.",
  "learn.myth.norm": "“The 16 in `nn.BatchNorm2d(16)` is the batch size.”",
  "learn.myth.norm.right": "It is the number of **channels**. The batch may have any size: a "
    + "tensor of 5 × 16 × 8 × 8 goes through. The layer has 32 parameters, two for each channel.",
  "learn.myth.loader": "“A `DataLoader` takes batches of 32 by itself, and downloads the data.”",
  "learn.myth.loader.right": "Its default batch size is **1**. It has no `download` argument; the "
    + "data set has. A batch holds what the data set returns, here images and labels: no indices, "
    + "no sampling weights.",
  "learn.myth.first": "“The first step shows how much memory training takes.”",
  "learn.myth.first.right": "Adam makes its state in the first `optimizer.step()`. Before that "
    + "there is none, so the second step needs more. Measure the **second** one.",
  "learn.myth.hundred": "“A model of a hundred million parameters needs 400 MB.”",
  "learn.myth.hundred.right": "To use it, yes. To train it with Adam: 400 MB of parameters, 400 "
    + "MB of gradients, 800 MB of Adam's state. That is **1,600 MB before the first image**.",
  "learn.myth.smi": "“`nvidia-smi` shows what my model needs.”",
  "learn.myth.smi.right": "Parameters, gradients, state and batch are {tensors} here. "
    + "`nvidia-smi` would show **{total}**, {times} times that: the CUDA context ({context}), and "
    + "{reserved} that PyTorch holds, with the workspaces of libraries and a cache of freed "
    + "memory. Other programs on the card come on top.",
  "learn.myth.eighty": "“80 % of the largest batch takes 80 % of the card.”",
  "learn.myth.eighty.right": "On a card with 12 GB, ResNet-50 takes a batch of 137 at most. 80 % "
    + "of that is 109, which already takes 95 % of the **card**: freed blocks stay reserved, and "
    + "the context comes on top. memfit recommends 80 % of the card, in multiples of 8: here 88. "
    + "The rule itself is a rule of thumb.",
  "learn.myth.test": "“Testing needs as much memory as training.”",
  "learn.myth.test.right": "With `torch.no_grad()` nothing is kept for a backward pass, and there "
    + "are no gradients. So the test batch may be large: 1,000 images of MNIST are 3,144,000 B "
    + "with their labels.",

  "learn.questions.title": "Try it",
  "learn.questions.what": "Guess first. Then look, and let the bench show it.",
  "learn.questions.try": "Show it on the bench",
  "learn.question.double": "MNIST, Adam, float32: the batch goes from 64 to 128. Do the four "
    + "parts double?",
  "learn.question.double.answer": "No: from {here} to {twice}, that is × {share}. Parts 3 and 4 "
    + "double, parts 1 and 2 stay.",
  "learn.question.adam": "SGD instead of Adam: how much memory does that save?",
  "learn.question.adam.answer": "{state} B: twice the parameters. {without} remain. It may train "
    + "worse, though: memory is not all.",
  "learn.question.colour": "From grey 28×28 to colour 32×32: how many times larger are the "
    + "parameters?",
  "learn.question.colour.answer": "× {times}: from {grey} to {colour}. The first layer has a "
    + "weight for each input and unit, and there are 3,072 inputs instead of 784. A convolution "
    + "would hardly grow.",
  "learn.question.half": "AMP instead of float32: do the four parts get smaller here?",
  "learn.question.half.answer": "No, larger: from {here} to {half}, × {ratio}. The images are "
    + "copied in half precision, and this network has few activations that could shrink.",
  "learn.question.zero": "Someone forgets `zero_grad()`. What happens to memory, and what to "
    + "training?",
  "learn.question.zero.answer": "Memory: gradients stay through the next forward pass, so the "
    + "peak may rise. Training: gradients add up from step to step, and the weights go astray. "
    + "Whoever wants this on purpose calls it gradient accumulation.",
  "learn.question.fit": "A card with 12 GB takes a batch of 1,816,952 with this network. Should "
    + "you?",
  "learn.question.fit.answer": "No. That is 30 times the training set, and memory is not what "
    + "limits this batch. A network so small learns well with 64. “As large as possible” is "
    + "advice for networks that fill the card.",
};

const zh = {
  "learn.myths.title": "常见错误",
  "learn.myths.what": "这些说法你都会遇到。先自己判断，再点开。",
  "learn.myth.size": "“MNIST 的网络占 403 KB。”",
  "learn.myth.size.right": "{count} 个参数 × 4 B = {bytes} B。也就是 {kilo} kB（按 1,000 字节算）或 **{kibi}**（按"
    + " 1,024 字节算）。",
  "learn.myth.grey": "“灰度图没有通道。”",
  "learn.myth.grey.right": "它有**一个**：`(1, 28, 28)`。只有画图时才去掉这个通道：matplotlib 对灰度图要求 `(H, W)`，对彩色图要求 "
    + "`(H, W, C)`。",
  "learn.myth.norm": "“`nn.BatchNorm2d(16)` 里的 16 是批大小。”",
  "learn.myth.norm.right": "它是**通道数**。批次可以是任意大小：5 × 16 × 8 × 8 的张量照样能通过。这一层有 32 个参数，每个通道两个。",
  "learn.myth.loader": "“`DataLoader` 的批大小默认是 32，还会自己下载数据。”",
  "learn.myth.loader.right": "它的默认批大小是 **1**。它没有 `download` 参数，有这个参数的是数据集。一个批次里就是数据集返回的东西，这里是图片和标签"
    + "：没有索引，也没有采样权重。",
  "learn.myth.first": "“看第一步就知道训练要用多少显存。”",
  "learn.myth.first.right": "Adam 在第一次 `optimizer.step()` 里才建立状态，之前什么也没有，所以第二步需要更多。要量**第二步**。",
  "learn.myth.hundred": "“一亿个参数的模型需要 400 MB。”",
  "learn.myth.hundred.right": "只是使用它，没错。用 Adam 训练它：参数 400 MB，梯度 400 MB，Adam 的状态 800 MB。**还没放进第一张图片"
    + "，就已经是 1,600 MB。**",
  "learn.myth.smi": "“`nvidia-smi` 显示的就是我的模型需要的。”",
  "learn.myth.smi.right": "这里的参数、梯度、优化器状态和批次一共 {tensors}。`nvidia-smi` 会显示 **{total}**，是它的 {times} "
    + "倍：CUDA 上下文（{context}），加上 PyTorch 持有的 {reserved}，其中有库的工作区和已释放显存的缓存。显卡上运行的其他程序还要另算。",
  "learn.myth.eighty": "“最大批大小的 80% 就占显卡的 80%。”",
  "learn.myth.eighty.right": "在 12 GB 的显卡上，ResNet-50 的批大小最多 137。它的 80% 是 109，这已经占了**显卡**的 95%：释放了的"
    + "内存块仍被保留，还要加上 CUDA 上下文。memfit 推荐的是显卡的 80%，并取 8 的倍数：这里是 88。这个规则本身只是经验之谈。",
  "learn.myth.test": "“测试和训练需要一样多的显存。”",
  "learn.myth.test.right": "在 `torch.no_grad()` 里，不必为反向传播保留任何东西，也没有梯度。所以测试批次可以很大：MNIST 的 1,000 张图片"
    + "连同标签是 3,144,000 B。",

  "learn.questions.title": "试一试",
  "learn.questions.what": "先猜，再看答案，然后在试验台上验证。",
  "learn.questions.try": "在试验台上显示",
  "learn.question.double": "MNIST、Adam、float32：批大小从 64 变成 128。四个部分会翻倍吗？",
  "learn.question.double.answer": "不会：从 {here} 到 {twice}，即 × {share}。第 3、4 部分翻倍，第 1、2 部分不变。",
  "learn.question.adam": "用 SGD 代替 Adam，能省多少显存？",
  "learn.question.adam.answer": "{state} B：参数的两倍。还剩 {without}。不过训练效果可能变差：显存不是一切。",
  "learn.question.colour": "从灰度 28×28 变成彩色 32×32，参数变成多少倍？",
  "learn.question.colour.answer": "× {times}：从 {grey} 到 {colour}。第一层的每个输入和每个单元之间都有一个权重，而输入从 784 个变"
    + "成了 3,072 个。换成卷积层就几乎不会变大。",
  "learn.question.half": "用 AMP 代替 float32，这里的四个部分会变小吗？",
  "learn.question.half.answer": "不会，反而变大：从 {here} 到 {half}，× {ratio}。图片多了一份半精度副本，而这个网络本来就没有多少激活值可以"
    + "缩小。",
  "learn.question.zero": "有人忘了调用 `zero_grad()`。显存会怎样？训练会怎样？",
  "learn.question.zero.answer": "显存：梯度会一直留到下一次前向传播，峰值可能升高。训练：梯度一步一步累加，权重会跑偏。有意这样做，就叫梯度累积。",
  "learn.question.fit": "12 GB 的显卡上，这个网络的批大小最大能到 1,816,952。该用这么大吗？",
  "learn.question.fit.answer": "不该。那是训练集的 30 倍，限制这个批大小的不是显存。这么小的网络用 64 就学得很好。“越大越好”是给能占满显卡的网络的建议。",
};

export const strings = { en, zh };
