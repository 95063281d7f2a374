/** Learn: the bench, images, the model and the four parts. */

const en = {
  "learn.title": "Where does GPU memory go?",
  "learn.lead": "Training fills GPU memory with **four things**. Here you see all of them, with "
    + "the small network of the course: 784 inputs, 128 hidden units, 10 classes. The bytes are "
    + "counted in a traced training step, and the arithmetic beside them comes to the same. "
    + "Change something and watch.",
  "learn.bench.title": "Try it here",
  "learn.bench.about": "Each of the four parts at the moment when it is full.",
  "learn.bench.together": "four parts together",
  "learn.bench.reset": "Back to the course: MNIST, Adam, 64",
  "learn.choice.image": "images",
  "learn.choice.grey": "grey 28×28",
  "learn.choice.colour": "colour 32×32",
  "learn.choice.optimizer": "optimizer",
  "learn.choice.sgd": "SGD",
  "learn.choice.momentum": "SGD + momentum",
  "learn.choice.adam": "Adam",
  "learn.choice.precision": "precision",
  "learn.choice.fp32": "float32",
  "learn.choice.amp-bf16": "mixed (AMP)",

  "learn.image.title": "An image is a block of numbers",
  "learn.image.grey": "To the model there is no picture, only numbers. A grey image of {data} has "
    + "**one channel**, not none: {shape} = {inputs} numbers. 0 is black, 255 is white. Move the "
    + "frame over the digit and read the numbers.",
  "learn.image.colour": "To the model there is no picture, only numbers. A colour image of {data} "
    + "has **three channels**: red, green and blue, each a grey image of its own. {shape} = "
    + "{inputs} numbers. Choose a channel: the red house is bright in red and dark in blue.",
  "learn.image.alt.grey": "A handwritten digit three, white on black. Arrow keys move the frame.",
  "learn.image.alt.colour": "A red house on a green hill under a blue sky. Arrow keys move the "
    + "frame.",
  "learn.image.batch": "Many images go through the model at once. Together they are one tensor "
    + "with four sides; `ToTensor` has made each image `(C, H, W)` and put the values between 0 "
    + "and 1:",
  "learn.image.N": "images",
  "learn.image.C": "channels",
  "learn.image.H": "height",
  "learn.image.W": "width",
  "learn.image.size": "On the disk a value is one byte: {bytes} B for an image before "
    + "compression. As a float32, which the model calculates with, it takes four: **{floats} B "
    + "for each image**.",

  "learn.model.title": "A model is layers, and layers are numbers to learn",
  "learn.model.what": "This network is a multilayer perceptron (MLP). `Flatten` lays the image "
    + "out as one row. `Linear` mixes all inputs into every output. `ReLU` sets what is below "
    + "zero to zero.",
  "learn.model.layer": "layer",
  "learn.model.output": "output",
  "learn.model.formula": "weights + biases",
  "learn.model.count": "parameters",
  "learn.model.none": "nothing to learn",
  "learn.model.rule": "A linear layer has one **weight** for each pair of input and output, and "
    + "one **bias** for each output. The batch size is in every output shape, but in no parameter.",
  "learn.model.bytes": "{total} parameters × 4 B (float32) = {bytes} B = **{size}**.",

  "learn.parts.title": "The four parts",
  "learn.parts.what": "When you train, memory holds four things. Each line shows the arithmetic, "
    + "and whether the traced training step counts the same.",
  "learn.parts.parameters": "What the model has learned so far: weights and biases.",
  "learn.parts.gradients": "For each parameter, in which direction it should move. They belong to "
    + "part 1: always as large as the parameters. They come with `backward()` and go with "
    + "`zero_grad()`.",
  "learn.parts.optimizer": "What the optimizer remembers from step to step. Plain SGD: nothing. "
    + "SGD with momentum: one number for each parameter. Adam: two (mean of the gradients, and of "
    + "their squares); AdamW keeps the same two.",
  "learn.parts.batch": "The images that the model sees now, and their labels. A label is an int64 "
    + "of 8 bytes. The whole {data} does not need to be on the GPU, only one batch of it.",
  "learn.parts.activations": "What the forward pass keeps because the backward pass will need it. "
    + "Without training (`no_grad`) almost nothing of this is kept.",
  "learn.parts.unit": "parameters",
  "learn.parts.same": "the traced step counts {bytes} B as well",
  "learn.parts.different": "the traced step counts {bytes} B",

  "learn.kept.relu": "output of `ReLU`",
  "learn.kept.output": "output of the network, kept by the variable `output`",
  "learn.kept.logs": "logarithms of the probabilities, kept by the loss",
  "learn.kept.scalars": "three single numbers: the loss, the sum of its weights, and the 1 that "
    + "backward starts with",
  "learn.kept.cast_input": "images, copied in half precision for the first layer",
  "learn.kept.cast_weight": "weights of the second layer, copied in half precision",
  "learn.kept.cast_loss": "output, copied back to float32 for the loss",

  "learn.peak.title": "Why does the Plan tab show other numbers for the same network?",
  "learn.peak.what": "The plan shows **one instant**: the one at which most memory is taken. Here "
    + "it is in this phase: {phase}. Not every part is full at that moment.",
  "learn.peak.bias": "One gradient is still missing there, that of the first layer's bias: "
    + "{hidden} × 4 B = {bias} B.",
  "learn.peak.gradients": "Gradients of {missing} B do not exist yet at that instant: the "
    + "backward pass goes from the last layer to the first.",
  "learn.peak.activations": "{gone} B of activations are already free again: the layers that kept "
    + "them are done.",
  "learn.peak.rest": "Temporaries live for a moment. Library workspaces belong to cuBLAS. The "
    + "cache is memory that PyTorch holds but does not use now, because it takes memory in large "
    + "pieces. The CUDA context is there before the first tensor. For so small a network they are "
    + "far more than the four parts; for a large one they hardly count.",
};

const zh = {
  "learn.title": "显存都用到哪里去了？",
  "learn.lead": "训练时，显存里装的是**四样东西**。这里用课程里的小网络（784 个输入、128 个隐藏单元、10 个类别）把它们全部展示出来。字节数是从一次被追踪的训练步骤里"
    + "数出来的，旁边的手算结果与它一字节不差。动手改一改，看看会发生什么。",
  "learn.bench.title": "在这里动手试",
  "learn.bench.about": "四个部分，各取自己最满的那一刻。",
  "learn.bench.together": "四个部分合计",
  "learn.bench.reset": "回到课程设置：MNIST、Adam、64",
  "learn.choice.image": "图片",
  "learn.choice.grey": "灰度 28×28",
  "learn.choice.colour": "彩色 32×32",
  "learn.choice.optimizer": "优化器",
  "learn.choice.sgd": "SGD",
  "learn.choice.momentum": "SGD + 动量",
  "learn.choice.adam": "Adam",
  "learn.choice.precision": "精度",
  "learn.choice.fp32": "float32",
  "learn.choice.amp-bf16": "混合精度（AMP）",

  "learn.image.title": "图片就是一块数",
  "learn.image.grey": "对模型来说没有画面，只有数。{data} 的一张灰度图有**一个通道**，而不是没有通道：{shape} = {inputs} 个数。0 是黑，"
    + "255 是白。把方框移到数字上，读一读里面的数。",
  "learn.image.colour": "对模型来说没有画面，只有数。{data} 的一张彩色图有**三个通道**：红、绿、蓝，每个通道本身就像一张灰度图。{shape} = "
    + "{inputs} 个数。选一个通道看看：红房子在红色通道里很亮，在蓝色通道里很暗。",
  "learn.image.alt.grey": "手写数字 3，黑底白字。用方向键移动方框。",
  "learn.image.alt.colour": "蓝天下，绿色山坡上的红房子。用方向键移动方框。",
  "learn.image.batch": "许多图片一起通过模型。它们合成一个四维张量；`ToTensor` 已经把每张图变成 `(C, H, W)`，数值在 0 到 1 之间：",
  "learn.image.N": "图片数",
  "learn.image.C": "通道",
  "learn.image.H": "高",
  "learn.image.W": "宽",
  "learn.image.size": "在硬盘上，一个值占一个字节：压缩前一张图 {bytes} B。模型用 float32 计算，一个值占四个字节：**每张图 {floats} B**。",

  "learn.model.title": "模型由层组成，层就是要学习的数",
  "learn.model.what": "这个网络是多层感知机（MLP）。`Flatten` 把图片展平成一行数；`Linear` 用全部输入算出每一个输出；`ReLU` 把小于零的值变成零。",
  "learn.model.layer": "层",
  "learn.model.output": "输出",
  "learn.model.formula": "权重 + 偏置",
  "learn.model.count": "参数个数",
  "learn.model.none": "没有要学习的参数",
  "learn.model.rule": "线性层的每一对输入和输出之间有一个**权重**，每个输出有一个**偏置**。批大小出现在每个输出的形状里，却不出现在任何参数里。",
  "learn.model.bytes": "{total} 个参数 × 4 B（float32）= {bytes} B = **{size}**。",

  "learn.parts.title": "四个部分",
  "learn.parts.what": "训练时，显存里有四样东西。每一项都列出手算过程，并与追踪到的训练步骤对照。",
  "learn.parts.parameters": "模型目前学到的东西：权重和偏置。",
  "learn.parts.gradients": "每个参数应该往哪个方向调整。梯度属于第 1 部分：总是和参数一样大。它们随 `backward()` 出现，随 `zero_grad()` "
    + "消失。",
  "learn.parts.optimizer": "优化器在步与步之间记住的东西。普通的 SGD：什么也不记。带动量的 SGD：每个参数一个数。Adam：每个参数两个数（梯度的均值，梯度平方的"
    + "均值）；AdamW 同样是这两个。",
  "learn.parts.batch": "模型此刻看到的图片和它们的标签。一个标签是 8 字节的 int64。不需要把整个 {data} 都放进显存，只放一个批次。",
  "learn.parts.activations": "前向传播留下来、反向传播要用到的东西。不训练时（`no_grad`）几乎什么都不用留。",
  "learn.parts.unit": "个参数",
  "learn.parts.same": "追踪到的训练步骤也是 {bytes} B",
  "learn.parts.different": "追踪到的训练步骤是 {bytes} B",

  "learn.kept.relu": "`ReLU` 的输出",
  "learn.kept.output": "网络的输出，由变量 `output` 保留",
  "learn.kept.logs": "概率的对数，由损失函数保留",
  "learn.kept.scalars": "三个单独的数：损失、损失的权重之和、反向传播起点的那个 1",
  "learn.kept.cast_input": "图片的半精度副本，供第一层使用",
  "learn.kept.cast_weight": "第二层权重的半精度副本",
  "learn.kept.cast_loss": "输出转回 float32 的副本，供损失函数使用",

  "learn.peak.title": "同一个网络，为什么“规划”页上的数不一样？",
  "learn.peak.what": "规划显示的是**一个瞬间**：占用显存最多的那一刻。这里它出现在{phase}阶段。那一刻并不是每个部分都满。",
  "learn.peak.bias": "那一刻还缺一个梯度，就是第一层偏置的梯度：{hidden} × 4 B = {bias} B。",
  "learn.peak.gradients": "那一刻还有 {missing} B 的梯度没有算出来：反向传播是从最后一层走向第一层的。",
  "learn.peak.activations": "{gone} B 的激活值那时已经释放：保留它们的层已经算完了。",
  "learn.peak.rest": "临时张量只存在一瞬间。库工作区归 cuBLAS 使用。缓存是 PyTorch 占着、但此刻没用上的显存，因为它成大块地申请。CUDA 上下文在第一个张量"
    + "出现之前就有了。对这么小的网络，它们远远超过四个部分；对大网络，它们就微不足道了。",
};

export const strings = { en, zh };
