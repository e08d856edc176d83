// The curve of presence: a line per target over the frames. Where a target is not believed, the plot is shaded; where
// there are several targets, a lane for each below the plot is.

import { colorOf, dark, legible } from "./elements.js";

const MARGIN = { left: 30, right: 8, top: 8, bottom: 20 };
const LANE = 6; // pixels from one lane to the next

export class Curve {
  constructor(canvas) {
    this.canvas = canvas;
    this.onSeek = () => {};
    this.clear([], null);
    new ResizeObserver(() => this.draw()).observe(canvas);
    dark.addEventListener("change", () => this.draw());
    const seek = (event) => {
      const x = event.clientX - canvas.getBoundingClientRect().left;
      this.onSeek(Math.round(((x - MARGIN.left) / this.#width()) * (this.#count() - 1)));
    };
    canvas.addEventListener("pointerdown", seek);
    canvas.addEventListener("pointermove", (event) => event.buttons && seek(event));
  }

  // `sure` is the presence from which on a box is believed; null where there is no such bound.
  clear(colors, sure) {
    this.colors = colors;
    this.sure = sure;
    this.values = []; // per target, a value per frame
    this.lost = []; // per target, whether it is not believed, per frame
    this.seconds = []; // of each frame, from the first one
    this.total = 0;
    this.first = 0;
    this.cursor = null;
  }

  // Results from frame number `from` of the job on take the place of what was there.
  take(from, records, measure) {
    records.forEach((record, i) => {
      this.seconds[from + i] = record.seconds;
      record.boxes.forEach((_, target) => {
        const value = record[measure][target] ?? (from + i === 0 ? 1 : 0);
        (this.values[target] ??= [])[from + i] = value;
        (this.lost[target] ??= [])[from + i] = record.status[target] === "lost" || (this.sure !== null && value < this.sure);
      });
    });
  }

  // The frame that a player shows at a time; frames of phones' videos do not last equally long.
  frameAt(seconds) {
    let [low, high] = [0, this.seconds.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.seconds[middle] <= seconds + 0.001) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // A time at which a player shows a frame.
  timeOf(frame) {
    const last = this.seconds.length - 1;
    const index = Math.min(Math.max(0, frame), last);
    return index === last ? this.seconds[last] : (this.seconds[index] + this.seconds[index + 1]) / 2;
  }

  // Spans of frames [start, end) in which a target is not believed.
  spans(target) {
    const spans = [];
    this.lost[target].forEach((isLost, frame) => {
      if (!isLost) return;
      const last = spans.at(-1);
      if (last && last[1] === frame) last[1] += 1;
      else spans.push([frame, frame + 1]);
    });
    return spans;
  }

  // In how many frames a target is believed, in words.
  inWords(target) {
    const [spans, frames] = [this.spans(target), this.values[target].length];
    if (!spans.length) return this.sure === null ? `tracked in ${frames} frames` : `sure in all ${frames} frames`;
    const unsure = spans.reduce((sum, [start, end]) => sum + end - start, 0);
    const [start, end] = spans.reduce((longest, span) => (span[1] - span[0] > longest[1] - longest[0] ? span : longest));
    const doubt = end - start === 1 ? "" : `, the longest doubt in frames ${this.first + start}–${this.first + end - 1}`;
    return `sure in ${Math.floor((100 * (frames - unsure)) / frames)} % of ${frames} frames${doubt}`;
  }

  #color(target) {
    return legible(colorOf(this.colors, target, this.values.length));
  }

  #count() {
    return Math.max(2, this.total || 0, this.values[0]?.length || 0);
  }

  #width() {
    return this.canvas.clientWidth - MARGIN.left - MARGIN.right;
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const targets = this.values.length;
    const lanes = targets > 1 ? LANE * targets : 0;
    canvas.style.setProperty("--lanes", `${lanes}px`);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const [muted, line] = ["--muted", "--line"].map((name) => style.getPropertyValue(name));
    const bottom = height - MARGIN.bottom - lanes;
    const x = (frame) => MARGIN.left + (frame / (this.#count() - 1)) * this.#width();
    const y = (value) => bottom - value * (bottom - MARGIN.top);
    this.#drawAxes(context, { x, y, width, below: bottom + lanes, muted, line });
    this.values.forEach((values, target) => {
      const [top, tall] = lanes ? [bottom + 3 + LANE * target, LANE - 2] : [MARGIN.top, bottom - MARGIN.top];
      context.fillStyle = this.#color(target);
      context.globalAlpha = lanes ? 1 : 0.16;
      for (const [start, end] of this.spans(target)) {
        const left = Math.max(MARGIN.left, x(start - 0.5));
        const right = Math.min(MARGIN.left + this.#width(), x(end - 0.5));
        context.fillRect(left, top, Math.max(2, right - left), tall);
      }
      context.globalAlpha = 1;
    });
    this.values.forEach((values, target) => this.#drawLine(context, values, this.#color(target), x, y));
    if (this.cursor !== null) {
      context.fillStyle = style.getPropertyValue("--ink");
      context.fillRect(x(this.cursor) - 0.75, MARGIN.top, 1.5, bottom + lanes - MARGIN.top);
    }
  }

  #drawAxes(context, { x, y, width, below, muted, line }) {
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of [0, 0.5, 1]) {
      context.fillStyle = line;
      context.fillRect(MARGIN.left, Math.round(y(value)), width - MARGIN.left - MARGIN.right, 1);
      context.fillStyle = muted;
      context.fillText(`${value}`, MARGIN.left - 7, y(value));
    }
    context.textBaseline = "alphabetic";
    const last = this.#count() - 1;
    context.textAlign = "left";
    context.fillText(`frame ${this.first}`, MARGIN.left, below + 16);
    context.textAlign = "right";
    context.fillText(`${this.first + last}`, x(last), below + 16);
  }

  // More frames than pixels: the least value of each group, so that no dip is lost.
  #drawLine(context, values, color, x, y) {
    const group = Math.max(1, Math.ceil(values.length / (2 * this.#width())));
    context.beginPath();
    for (let start = 0; start < values.length; start += group) {
      const least = group === 1 ? values[start] : Math.min(...values.slice(start, start + group));
      context.lineTo(x(start), y(least));
    }
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.strokeStyle = color;
    context.stroke();
  }
}
