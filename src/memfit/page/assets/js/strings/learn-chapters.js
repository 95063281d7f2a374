/** Learn: the training step, batch size, mixed precision. */

const en = {
  "learn.step.title": "One training step, instant by instant",
  "learn.step.what": "A few lines of Python, and memory changes with each. Step through them.",
  "learn.step.instants": "Instants of the step",
  "learn.stop.data": "data",
  "learn.stop.forward": "forward",
  "learn.stop.peak": "in backward",
  "learn.stop.backward": "after backward",
  "learn.stop.optimizer": "in the optimizer",
  "learn.stop.end": "end",
  "learn.step.data": "A new batch is on the GPU, and `zero_grad()` has freed the old gradients. "
    + "For a moment two batches were there: the new one, and the old one that the variables still "
    + "named. So it is with the output and the loss of the last step: they stay until they are "
    + "overwritten.",
  "learn.step.forward": "The model has run. Activations have piled up layer by layer: the "
    + "backward pass will need them. There are no gradients yet.",
  "learn.step.peak": "The backward pass goes from the last layer to the first. Gradients come, "
    + "activations go. In between the gradients of activations need room, too: temporaries. This "
    + "is the fullest moment of the backward pass.",
  "learn.step.backward": "All gradients are there, as large as the parameters. What forward had "
    + "kept is free again, except what variables still name.",
  "learn.step.optimizer": "The optimizer moves the parameters. On the way it takes temporaries: "
    + "PyTorch treats all tensors at once (`foreach`), and with Adam these are as large as the "
    + "parameters.",
  "learn.step.optimizer.in_place": "The optimizer moves the parameters in place. With SGD that "
    + "takes no room of its own; Adam would take temporaries as large as the parameters for a "
    + "moment.",
  "learn.step.end": "The step is done: parameters, gradients, state and the last batch remain. "
    + "The next step starts from here.",
  "learn.step.came": "What came",
  "learn.step.went": "What went",
  "learn.step.nothing": "nothing",
  "learn.step.more": "and {count} more",
  "learn.step.back": "back",
  "learn.step.on": "on",
  "learn.step.one": "first step",
  "learn.step.two": "second step",
  "learn.step.chart": "Memory of tensors by part through two training steps",
  "learn.step.caption": "From left to right each allocation and each release of two steps. Left "
    + "out: workspaces of cuBLAS ({workspaces}), which would dwarf the rest.",
  "learn.step.first": "**Look at the second step, not at the first.** Before the first "
    + "`optimizer.step()` Adam has no state at all; it comes with that step and stays. "
    + "Measure only the first step, and you measure too little.",

  "learn.batch.title": "What batch size changes",
  "learn.batch.memory": "Memory grows **on a straight line**: {each} B for each further image, on "
    + "top of {fixed} that do not depend on the batch. Parts 1 and 2 stay, parts 3 and 4 grow.",
  "learn.batch.chart": "Memory of the four parts by batch size",
  "learn.batch.caption": "Batch 1 to {most}; the line is your batch size.",
  "learn.batch.besides": "And besides memory?",
  "learn.batch.steps": "**Steps.** {samples} / {batch} = {exact}: an epoch of {data} has {steps} "
    + "steps, the last one with {last} images. Twice the batch, half as many updates of the "
    + "weights.",
  "learn.batch.noise": "**Noise.** The gradient of a batch is a mean over its images. Its random "
    + "error falls with the square root: four times the batch, half the error. Large batches are "
    + "smoother, but beyond some size a smoother gradient is hardly a better one.",
  "learn.batch.rate.sgd": "**Learning rate.** A larger batch often bears a larger one. For SGD a "
    + "common start is the linear rule: twice the batch, twice the rate, with warm-up. It is a "
    + "start, no law: tune it.",
  "learn.batch.rate.adam": "**Learning rate.** A larger batch often bears a larger one. For Adam "
    + "a common start is the square root rule: four times the batch, twice the rate. It is a "
    + "start, no law: tune it.",
  "learn.batch.speed": "**Speed.** A small batch leaves most of a GPU idle. Images per second "
    + "rise with the batch until the GPU is busy, then no more. `memfit study` measures where.",
  "learn.batch.norm": "**BatchNorm** takes its statistics from the images that go through "
    + "together, so there the batch size changes what the model calculates. This MLP has none.",
  "learn.batch.four": "four parts",
  "learn.batch.per_epoch": "steps per epoch",
  "learn.batch.spread": "error of the gradient",
  "learn.batch.rate": "learning rate, by the rule",

  "learn.precision.title": "Does mixed precision halve everything?",
  "learn.precision.what": "A bfloat16 has 2 bytes, a float32 has 4. So AMP should need half? See "
    + "for yourself, with what you chose on the bench:",
  "learn.precision.ratio": "AMP / float32",
  "learn.precision.same": "the same",
  "learn.precision.stay": "**Parameters, gradients and the optimizer's state stay float32.** "
    + "Small updates would get lost otherwise. The loader delivers float32 as well.",
  "learn.precision.more": "Only what some layers calculate gets smaller, and copies in half "
    + "precision are added: of the images, of the weights. For this network and a batch of "
    + "{batch}, AMP keeps **more**: {mixed} B of activations instead of {full} B, {times} times "
    + "as much.",
  "learn.precision.when": "It pays where activations are most of the memory. For ResNet-50 with a "
    + "batch of 32 the total goes to 61 %, not to 50 %. And it is faster where the GPU has tensor "
    + "cores.",
};

const zh = {
  "learn.step.title": "一个训练步骤的每个瞬间",
  "learn.step.what": "几行 Python，每一行都会改变显存。一步一步往下看。",
  "learn.step.instants": "训练步骤的各个瞬间",
  "learn.stop.data": "数据",
  "learn.stop.forward": "前向传播",
  "learn.stop.peak": "反向传播中",
  "learn.stop.backward": "反向传播后",
  "learn.stop.optimizer": "优化器更新中",
  "learn.stop.end": "结束",
  "learn.step.data": "新的批次已在 GPU 上，`zero_grad()` 释放了旧的梯度。有一瞬间同时存在两个批次：新的，和变量还指着的旧的。上一步的输出和损失也一样：直到"
    + "被覆盖才会消失。",
  "learn.step.forward": "模型算完了。激活值一层一层地堆了起来：反向传播要用到它们。此时还没有梯度。",
  "learn.step.peak": "反向传播从最后一层走向第一层。梯度出现，激活值消失。其间还要容纳激活值自身的梯度：它们是临时张量。这是反向传播中显存最满的一刻。",
  "learn.step.backward": "所有梯度都齐了，和参数一样大。前向传播保留的东西都已释放，只剩变量还指着的那些。",
  "learn.step.optimizer": "优化器更新参数，过程中要用临时张量：PyTorch 把所有张量放在一起处理（`foreach`），用 Adam 时它们和参数一样大。",
  "learn.step.optimizer.in_place": "优化器就地更新参数。用 SGD 时这不需要额外的空间；换成 Adam，会有一瞬间多出和参数一样大的临时张量。",
  "learn.step.end": "这一步结束了：留下参数、梯度、优化器状态和最后一个批次。下一步从这里开始。",
  "learn.step.came": "新出现的",
  "learn.step.went": "已释放的",
  "learn.step.nothing": "没有",
  "learn.step.more": "还有 {count} 个",
  "learn.step.back": "上一个",
  "learn.step.on": "下一个",
  "learn.step.one": "第一步",
  "learn.step.two": "第二步",
  "learn.step.chart": "两个训练步骤中各部分张量占用的显存",
  "learn.step.caption": "从左到右是两个步骤里的每一次分配和释放。图中没有画 cuBLAS 的工作区（{workspaces}），否则别的都看不见了。",
  "learn.step.first": "**要看第二步，不要看第一步。** 在第一次 `optimizer.step()` 之前，Adam 还没有任何状态；状态在那一步出现，之后一直都在。只"
    + "量第一步，就量少了。",

  "learn.batch.title": "批大小改变了什么",
  "learn.batch.memory": "显存**沿直线增长**：每多一张图片多 {each} B；另有 {fixed} 与批大小无关。第 1、2 部分不变，第 3、4 部分增长。",
  "learn.batch.chart": "四个部分随批大小的变化",
  "learn.batch.caption": "批大小从 1 到 {most}；竖线是当前的批大小。",
  "learn.batch.besides": "除了显存呢？",
  "learn.batch.steps": "**步数。** {samples} / {batch} = {exact}：{data} 的一个 epoch 有 {steps} 步，最后一步只有 "
    + "{last} 张图片。批大小翻倍，权重更新的次数减半。",
  "learn.batch.noise": "**噪声。** 一个批次的梯度是其中图片的平均值，随机误差按平方根下降：批大小变成四倍，误差减半。批次大，梯度更平稳；但超过某个大小之后，更平稳的梯"
    + "度几乎不再带来好处。",
  "learn.batch.rate.sgd": "**学习率。** 批次更大时，往往可以用更大的学习率。对 SGD，常用的起点是线性规则：批大小翻倍，学习率也翻倍，并加上预热。这只是起点，不是"
    + "定律：还要调。",
  "learn.batch.rate.adam": "**学习率。** 批次更大时，往往可以用更大的学习率。对 Adam，常用的起点是平方根规则：批大小变成四倍，学习率翻倍。这只是起点，不是定律"
    + "：还要调。",
  "learn.batch.speed": "**速度。** 批次太小，GPU 大部分时间闲着。每秒处理的图片数随批大小上升，直到 GPU 忙满为止。`memfit study` 会实测出这个转"
    + "折点。",
  "learn.batch.norm": "**BatchNorm** 的统计量来自一起通过的那些图片，所以批大小会改变模型算出的结果。这个 MLP 里没有 BatchNorm。",
  "learn.batch.four": "四个部分",
  "learn.batch.per_epoch": "每个 epoch 的步数",
  "learn.batch.spread": "梯度的误差",
  "learn.batch.rate": "按规则的学习率",

  "learn.precision.title": "混合精度会让一切减半吗？",
  "learn.precision.what": "bfloat16 占 2 个字节，float32 占 4 个。那么 AMP 只需要一半显存？用你在试验台上的选择看一看：",
  "learn.precision.ratio": "AMP / float32",
  "learn.precision.same": "相同",
  "learn.precision.stay": "**参数、梯度和优化器状态仍然是 float32。** 否则微小的更新会丢失。加载器给出的也是 float32。",
  "learn.precision.more": "变小的只有某些层的计算结果，同时还多出半精度的副本：图片的、权重的。对这个网络、批大小 {batch}，AMP 保留得**更多**：激活值 "
    + "{mixed} B，而不是 {full} B，是原来的 {times} 倍。",
  "learn.precision.when": "激活值占大头的时候，它才划算。批大小为 32 的 ResNet-50，总量降到 61%，而不是 50%。另外，在有 Tensor Core 的"
    + " GPU 上它更快。",
};

export const strings = { en, zh };
