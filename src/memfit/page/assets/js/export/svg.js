/** The timeline as a picture that stands alone: SVG, and PNG made of it. */

import { formatBytes } from "memfit/ui/format";

const MARGIN = { left: 84, right: 20, top: 64 };
const LINE_HEIGHT = 20;
const TICKS = 5;

// Okabe and Ito's colours, which people with any colour vision tell apart.
const COLOURS = {
  parameters: "#0072b2",
  gradients: "#56b4e9",
  optimizer: "#009e73",
  batch: "#f0e442",
  activations: "#e69f00",
  temporaries: "#cc79a7",
  workspaces: "#999999",
};

const PLAIN_NAMES = { part: (name) => name, phase: (name) => name, line: (name) => name };

/**
 * How the picture looks and what it says.
 * @typedef {object} PictureOptions
 * @property {string} [title]
 * @property {number} [width] pixels
 * @property {number} [height]
 * @property {number} [from] first event shown
 * @property {number} [to] one beyond the last
 * @property {{bytes: number, label: string}|null} [limit] the card's line
 * @property {Object<string, string>} [colours] by part, and "background", "text", "limit"
 * @property {{part: (name: string) => string, phase: (name: string) => string,
 *   line: (name: string) => string}} [names] words; a part and a phase may share a name
 */

/**
 * The stacked timeline with its phases, lines and legend.
 * @param {Timeline} timeline
 * @param {PictureOptions} [options]
 * @returns {string} a whole SVG file
 */
export function timelineSvg(timeline, options = {}) {
  const picture = laidOut(timeline, options);
  const { width, height, colours } = picture;
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  const font = 'font-family="system-ui, sans-serif" font-size="12"';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${font} fill="${escaped(colours.text)}">`,
    `<title>${escaped(picture.title)}</title>`,
    `<rect width="${width}" height="${height}" fill="${escaped(colours.background)}"/>`,
    `<text x="${MARGIN.left}" y="24" font-size="16">${escaped(picture.title)}</text>`,
    ...bands(picture),
    ...ticks(picture),
    ...layers(picture),
    ...lines(picture),
    ...legend(picture),
    "</svg>",
  ].join("\n");
}

/**
 * Draw an SVG file into a PNG.
 * @param {string} svg
 * @param {number} width pixels
 * @param {number} height
 * @returns {Promise<Blob>}
 */
export async function svgToPng(svg, width, height) {
  const image = new Image(width, height);
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d")?.drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    const finish = (blob) => (blob ? resolve(blob) : reject(new Error("no PNG was made")));
    canvas.toBlob(finish, "image/png");
  });
}

/** Everything that the pieces of the picture share. */
function laidOut(timeline, options) {
  const { title = "", width = 1200, height = 520, limit = null, names = PLAIN_NAMES } = options;
  const { from = 0, to = timeline.count } = options;
  const colours = { ...COLOURS, background: "#ffffff", text: "#222222", limit: "#d55e00" };
  const items = [
    ...timeline.parts.map((name) => ({ name, kind: "part" })),
    ...["allocated", "reserved"].map((name) => ({ name, kind: "line" })),
  ].map((item) => ({ ...item, words: names[item.kind](item.name) }));
  const rows = legendRows(
    items.map(({ words }) => words),
    width,
  );
  const right = width - MARGIN.right;
  const bottom = height - (rows.at(-1).row + 1) * LINE_HEIGHT - 36;
  const columns = timeline.columns(from, to, right - MARGIN.left);
  const most = Math.max(
    1,
    limit?.bytes ?? 0,
    columns.reserved.reduce((a, b) => Math.max(a, b), 0),
  );
  const count = Math.max(1, columns.positions.length);
  return {
    ...{ timeline, title, width, height, limit, names, from, to },
    ...{ right, bottom, columns, items, rows },
    colours: { ...colours, ...options.colours },
    most,
    x: (column) => round(MARGIN.left + ((right - MARGIN.left) * column) / count),
    y: (bytes) => round(bottom - ((bottom - MARGIN.top) * bytes) / (most * 1.04)),
  };
}

/** Phases as shades behind the picture, named where there is room. */
function bands({ timeline, from, to, right, bottom, names, colours }) {
  const span = Math.max(1, to - from);
  const xOf = (position) => {
    const share = (Math.min(Math.max(position, from), to) - from) / span;
    return round(MARGIN.left + (right - MARGIN.left) * share);
  };
  return timeline.bands.flatMap((band, index) => {
    const left = xOf(band.from);
    const width = round(xOf(band.to) - left);
    if (width <= 0) return [];
    const opacity = index % 2 ? 0.04 : 0.09;
    const box = `x="${left}" y="${MARGIN.top - 22}" width="${width}"`;
    const shade = `<rect ${box} height="${round(bottom - MARGIN.top + 22)}" opacity="${opacity}"`;
    const name = names.phase(band.phase);
    const words = `<text x="${left + 4}" y="${MARGIN.top - 8}">${escaped(name)}</text>`;
    const isNamed = textWidth(name) + 8 < width;
    return [`${shade} fill="${escaped(colours.text)}"/>`, ...(isNamed ? [words] : [])];
  });
}

/** Lines across at round sizes. */
function ticks({ most, y, right, colours }) {
  const step = 2 ** Math.ceil(Math.log2(most / TICKS));
  const found = [];
  for (let bytes = 0; bytes <= most; bytes += step) {
    const line = `x1="${MARGIN.left}" x2="${right}" y1="${y(bytes)}" y2="${y(bytes)}"`;
    found.push(`<line ${line} stroke="${escaped(colours.text)}" stroke-opacity="0.2"/>`);
    const place = `x="${MARGIN.left - 8}" y="${round(y(bytes) + 4)}" text-anchor="end"`;
    found.push(`<text ${place}>${escaped(formatBytes(bytes))}</text>`);
  }
  return found;
}

/** The parts, one upon the other. */
function layers({ timeline, columns, colours, x, y }) {
  const below = new Float64Array(columns.positions.length);
  return timeline.parts.map((part, index) => {
    const above = below.map((bytes, column) => bytes + columns.parts[index][column]);
    const outline = `${steps(above, x, y)}L${stepsBack(below, x, y)}Z`;
    below.set(above);
    return `<path class="part" d="M${outline}" fill="${escaped(colours[part] ?? "#888888")}"/>`;
  });
}

function lines({ columns, colours, limit, right, x, y }) {
  const curve = (name, values, dashes) => {
    const stroke = `fill="none" stroke="${escaped(colours.text)}" stroke-width="1.2"`;
    return `<path class="${name}" d="M${steps(values, x, y)}" ${stroke} ${dashes}/>`;
  };
  const drawn = [
    curve("allocated", columns.allocated, ""),
    curve("reserved", columns.reserved, 'stroke-dasharray="5 3"'),
  ];
  if (limit === null) return drawn;
  const colour = escaped(colours.limit);
  const at = `x1="${MARGIN.left}" x2="${right}" y1="${y(limit.bytes)}" y2="${y(limit.bytes)}"`;
  const place = `x="${right - 4}" y="${round(y(limit.bytes) - 5)}" text-anchor="end"`;
  return [
    ...drawn,
    `<line class="limit" ${at} stroke="${colour}" stroke-width="2"/>`,
    `<text ${place} fill="${colour}">${escaped(limit.label)}</text>`,
  ];
}

function legend({ items, rows, bottom, colours }) {
  return items.flatMap(({ name, kind, words }, index) => {
    const { left, row } = rows[index];
    const top = bottom + 24 + row * LINE_HEIGHT;
    const dashes = name === "reserved" ? 'stroke-dasharray="5 3"' : "";
    const at = `x1="${left}" x2="${left + 12}" y1="${top + 6}" y2="${top + 6}"`;
    const box = `x="${left}" y="${top}" width="12" height="12"`;
    const swatch =
      kind === "part"
        ? `<rect ${box} fill="${escaped(colours[name] ?? "#888888")}"/>`
        : `<line ${at} stroke="${escaped(colours.text)}" stroke-width="1.2" ${dashes}/>`;
    return [swatch, `<text x="${left + 18}" y="${top + 10}">${escaped(words)}</text>`];
  });
}

/** Where each entry of the legend goes, in as many rows as it needs. */
function legendRows(words, width) {
  let left = MARGIN.left;
  let row = 0;
  return words.map((word) => {
    const room = 18 + textWidth(word) + 18;
    if (left > MARGIN.left && left + room > width - MARGIN.right) {
      left = MARGIN.left;
      row += 1;
    }
    const place = { left: round(left), row };
    left += room;
    return place;
  });
}

/** A line of steps, one a column, from left to right. */
function steps(values, x, y) {
  if (values.length === 0) return `${x(0)} ${y(0)}`;
  const path = Array.from(values, (bytes, column) => `V${y(bytes)}H${x(column + 1)}`);
  return `${x(0)} ${y(values[0])}${path.join("")}`;
}

/** The same from right to left. */
function stepsBack(values, x, y) {
  const last = values.length - 1;
  if (last < 0) return `${x(0)} ${y(0)}`;
  const path = Array.from(values, (_, k) => `V${y(values[last - k])}H${x(last - k)}`);
  return `${x(last + 1)} ${y(values[last])}${path.join("")}`;
}

/** About how wide a text of 12 pixels is; letters beyond Latin are as wide as they are high. */
function textWidth(text) {
  return [...text].reduce((width, letter) => width + (letter > "\u2e7f" ? 12 : 6.6), 0);
}

function round(pixels) {
  return Math.round(pixels * 10) / 10;
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;" };

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what XML cannot hold
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

/** Text for XML, without the characters that XML cannot hold. */
function escaped(text) {
  const allowed = String(text).toWellFormed().replace(FORBIDDEN, "");
  return allowed.replace(/[&<>"']/g, (letter) => ENTITIES[letter]);
}
