/** Texts of the export menu. */

const en = {
  "export.title": "Export",
  "export.picture": "{model}, batch {batch}, {card}",
  "export.json": "JSON",
  "export.json.note": "as memfit plan --json",
  "export.csv": "CSV, timeline",
  "export.csv.note": "one row an event",
  "export.live": "CSV, alive now",
  "export.live.note": "at the chosen instant",
  "export.png": "PNG",
  "export.png.note": "picture of the last step",
  "export.svg": "SVG",
  "export.svg.note": "the same, to edit",
  "export.perfetto": "Perfetto",
  "export.perfetto.note": "Chrome JSON",
  "export.document": "Plan document",
  "export.document.note": "opens in Compare",
  "export.snapshot": "PyTorch snapshot",
  "export.snapshot.note": "for PyTorch's own viewer",
};

const zh = {
  "export.title": "导出",
  "export.picture": "{model}，批大小 {batch}，{card}",
  "export.json": "JSON",
  "export.json.note": "与 memfit plan --json 相同",
  "export.csv": "CSV：时间线",
  "export.csv.note": "每个事件一行",
  "export.live": "CSV：当前存活",
  "export.live.note": "所选时刻",
  "export.png": "PNG",
  "export.png.note": "最后一步的图片",
  "export.svg": "SVG",
  "export.svg.note": "同一图片，可编辑",
  "export.perfetto": "Perfetto",
  "export.perfetto.note": "Chrome JSON",
  "export.document": "规划文档",
  "export.document.note": "可在“对比”中打开",
  "export.snapshot": "PyTorch 快照",
  "export.snapshot.note": "供 PyTorch 显存查看器使用",
};

export const strings = { en, zh };
