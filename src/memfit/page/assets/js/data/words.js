/** Words of a data document in the page's language, and names that cannot disturb it. */

import { html } from "memfit/ui/html";
import { currentLanguage } from "memfit/ui/i18n";

/** Control characters, marks that turn the direction of writing, halves of a character. */
const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/gu;

/** By the key of memfit.data.hazards' words: what it is, what usually happens, what memfit does. */
const HAZARDS_ZH = {
  "16-bit-grey": [
    "16 位灰度图",
    "convert 把大的值一律截断为 255：几乎全白",
    "从 0..65535 缩放到 0..255",
  ],
  "16-bit-grey-that-leaves-the-upper-three-quarters-empty": [
    "只用到最低四分之一范围的 16 位灰度图",
    "10 到 14 位的值压成 8 位，大部分层次会丢失",
    "同样按 0..65535 缩放：请先拉伸，或用 transform 拉伸",
  ],
  "16-bit-colour": ["16 位彩色图", "Pillow 只保留高 8 位", "同样：给出 8 位"],
  "floating-point": ["浮点数图片", "convert 会截断：0..1 变成全黑", "从 0..1 缩放到 0..255"],
  palette: ["调色板图片", "不调用 convert 时，调色板序号被当成像素值", "使用调色板里的颜色"],
  "with-transparency": ["带透明度", "丢掉 alpha 通道，露出本来看不见的颜色", "铺在白底上"],
  cmyk: ["CMYK", "保留为四个通道，或者颜色反转", "转换成 RGB，并还原 Adobe 的反转"],
  "turned-by-exif": ["EXIF 标记了旋转", "方向被忽略：图片横躺着", "转正"],
  "animated-or-of-several-pages": [
    "动图或多页图片",
    "除第一帧外全部丢失，没有任何提示",
    "取第一帧，并在这里说明",
  ],
  "with-a-colour-profile-other-than-srgb": [
    "带有非 sRGB 的颜色配置",
    "颜色被当作 sRGB：会偏色",
    "同样：不应用颜色配置",
  ],
  "of-another-format-than-the-name-says": [
    "实际格式与文件名不符",
    "按内容读取，或因文件名而漏掉",
    "按内容读取",
  ],
  "grey-among-colour": [
    "彩色图中混有灰度图",
    "1 个通道和 3 个通道的图片不能叠成一个批次",
    "一律给出 RGB，灰度图的三个通道相同",
  ],
  "colour-outside-of-training": [
    "训练集之外有彩色图",
    "1 个通道和 3 个通道的图片不能叠成一个批次",
    "与训练图片一样给出灰度图",
  ],
  "grey-in-three-equal-channels": [
    "三个通道相同的灰度图",
    "同一张图占三倍的内存",
    "按存储的样子给出；一个通道就够了",
  ],
  "images-in-hidden-folders": [
    "隐藏文件夹里有图片",
    "torchvision 的 ImageFolder 把隐藏文件夹当作一个类别：其后的类别编号都错位一个",
    "不读取",
  ],
  "numbers-in-the-order-of-text": [
    "数字文件夹按文本排序",
    "1、10、11、2 的顺序：标签不等于文件夹的数字",
    "编号相同，并给出文件夹的名称；补零后顺序就对了",
  ],
  "of-different-sizes": ["尺寸不一", "不能叠成一个批次", "缩放或裁剪到训练配方的 input_shape"],
};

const LAYOUTS_ZH = {
  "class folders": "按类别分文件夹",
  "class folders in split folders": "先按划分、再按类别分文件夹",
  "flat folder": "一个文件夹，不分类别",
  "flat folder in split folders": "按划分分文件夹，不分类别",
  "CSV table": "CSV 表格",
  "Parquet table": "Parquet 表格",
  "IDX files": "IDX 文件",
  "NumPy archive": "NumPy 归档",
  "CIFAR pickles": "CIFAR 的 pickle 文件",
  "single image": "单张图片",
  "generated shapes": "生成的图形",
};

/**
 * A name from the disk as it can be shown: what would act on the text stands as its code.
 * @param {string} name
 */
export function visible(name) {
  return name.replace(
    UNSEEN,
    (one) => `\\u${Number(one.codePointAt(0)).toString(16).padStart(4, "0")}`,
  );
}

/** A sentence that memfit wrote in English. @param {{text: string}} props */
export function English({ text }) {
  return html`<span lang="en">${visible(text)}</span>`;
}

/**
 * What would get lost without an error: kind, what usually happens, what happens here.
 * @param {{kind: string, key: string, usually: string, here: string}} hazard
 */
export function hazardWords(hazard) {
  const known = currentLanguage() === "zh" ? HAZARDS_ZH[hazard.key] : undefined;
  return (
    known ??
    [hazard.kind, hazard.usually, hazard.here].map((text) => html`<${English} text=${text} />`)
  );
}

/** How the data lies on the disk. @param {string} layout */
export function layoutWords(layout) {
  const known = currentLanguage() === "zh" ? LAYOUTS_ZH[layout] : undefined;
  return known ?? html`<${English} text=${layout} />`;
}
