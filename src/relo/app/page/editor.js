// Boxes over a picture: drawn, moved and resized by mouse, touch or keyboard; or locked, to show a result.
// Coordinates are the picture's pixels: the SVG's view box is the picture.

import { colorOf } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const CORNERS = [[0, 0], [1, 0], [0, 1], [1, 1]];
const CURSORS = ["nwse-resize", "nesw-resize", "nesw-resize", "nwse-resize"];
const SMALLEST = 2; // pixels of the picture
const TAP = 6; // pixels of the screen: a shorter drag draws nothing
const ROOMY = 32; // pixels of the screen: of a smaller box the handles lie outside

const within = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));
const part = (name, className, parent) => {
  const element = document.createElementNS(SVG, name);
  element.setAttribute("class", className);
  return parent.appendChild(element);
};
const place = (element, values) => {
  for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
};

export class BoxEditor {
  // `onChange` is called when a box, or which one is selected, has changed.
  constructor(svg, colors, onChange) {
    this.svg = svg;
    this.colors = colors;
    this.onChange = onChange;
    this.maximum = Infinity;
    this.boxes = []; // {x, y, w, h}
    this.selected = -1;
    this.drag = null;
    this.shapes = [];
    this.size = [1, 1];
    svg.addEventListener("pointerdown", (event) => this.#press(event));
    svg.addEventListener("pointermove", (event) => this.#move(event));
    svg.addEventListener("pointerup", (event) => this.#release(event));
    svg.addEventListener("pointercancel", (event) => this.#cancel(event));
    svg.addEventListener("keydown", (event) => this.#key(event));
    svg.addEventListener("focusin", (event) => this.#focus(event));
    new ResizeObserver(() => this.#layOut()).observe(svg);
  }

  setPicture(width, height) {
    this.size = [width, height];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.#layOut();
  }

  get isLocked() {
    return this.svg.classList.contains("is-locked");
  }

  set isLocked(locked) {
    this.svg.classList.toggle("is-locked", locked);
    this.#layOut();
  }

  setBoxes(boxes, status = []) {
    this.boxes = boxes.map(([x, y, w, h]) => ({ x, y, w, h }));
    this.status = status;
    this.selected = Math.min(this.selected, boxes.length - 1);
    this.#layOut();
  }

  asLists() {
    return this.boxes.map(({ x, y, w, h }) => [x, y, w, h]);
  }

  // A box in the middle, for those who do not draw.
  add() {
    if (this.boxes.length >= this.maximum) return;
    const [width, height] = this.size;
    const side = Math.max(SMALLEST, Math.round(Math.min(width, height) / 4));
    const shift = (this.boxes.length * side) / 6;
    const x = within(Math.round((width - side) / 2 + shift), 0, width - side);
    this.boxes.push({ x, y: Math.round((height - side) / 2), w: side, h: side });
    this.select(this.boxes.length - 1);
    this.shapes[this.selected].group.focus();
  }

  remove(index) {
    this.boxes.splice(index, 1);
    this.select(Math.min(index, this.boxes.length - 1));
  }

  select(index) {
    this.selected = index;
    this.#changed();
  }

  #changed() {
    this.#layOut();
    this.onChange();
  }

  #point(event) {
    const frame = this.svg.getBoundingClientRect();
    const [width, height] = this.size;
    return [
      within(((event.clientX - frame.left) / frame.width) * width, 0, width),
      within(((event.clientY - frame.top) / frame.height) * height, 0, height),
    ];
  }

  #press(event) {
    if (this.isLocked || event.button !== 0 || this.drag) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    const [x, y] = this.#point(event);
    const group = event.target.closest(".box");
    const start = { clientX: event.clientX, clientY: event.clientY };
    if (!group) {
      if (this.boxes.length >= this.maximum) return;
      this.drag = { kind: "draw", pointer: event.pointerId, anchor: [x, y], start, index: this.boxes.length };
      return;
    }
    const index = this.shapes.findIndex((shape) => shape.group === group);
    const box = this.boxes[index];
    const corner = event.target.dataset.corner;
    const common = { pointer: event.pointerId, index };
    if (corner === undefined) {
      this.drag = { ...common, kind: "move", offset: [x - box.x, y - box.y] };
    } else {
      // From where it was taken, which may be beside the corner.
      const [right, bottom] = CORNERS[corner];
      const slip = [box.x + right * box.w - x, box.y + bottom * box.h - y];
      this.drag = { ...common, kind: "resize", slip, anchor: [box.x + (1 - right) * box.w, box.y + (1 - bottom) * box.h] };
    }
    group.focus({ preventScroll: true });
    this.select(index);
  }

  #move(event) {
    if (this.drag?.pointer !== event.pointerId) return; // a second finger zooms
    const { kind, index, anchor, offset, start, slip = [0, 0] } = this.drag;
    const [x, y] = this.#point(event);
    const [width, height] = this.size;
    if (kind === "move") {
      const box = this.boxes[index];
      box.x = within(x - offset[0], 0, width - box.w);
      box.y = within(y - offset[1], 0, height - box.h);
    } else {
      const isTap = kind === "draw" && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < TAP;
      if (isTap && index === this.boxes.length) return;
      this.boxes[index] = this.#spanned(anchor, [within(x + slip[0], 0, width), within(y + slip[1], 0, height)]);
      this.selected = index;
    }
    this.#changed();
  }

  #spanned(anchor, point) {
    const sides = [0, 1].map((axis) => {
      const length = within(Math.abs(point[axis] - anchor[axis]), SMALLEST, this.size[axis]);
      const low = point[axis] < anchor[axis] ? anchor[axis] - length : anchor[axis];
      return [within(low, 0, this.size[axis] - length), length];
    });
    return { x: sides[0][0], y: sides[1][0], w: sides[0][1], h: sides[1][1] };
  }

  #release(event) {
    if (this.drag?.pointer !== event.pointerId) return;
    const { kind, index } = this.drag;
    this.drag = null;
    if (index < this.boxes.length) {
      const box = this.boxes[index];
      for (const key of ["x", "y", "w", "h"]) box[key] = Math.round(box[key] * 10) / 10;
      if (kind === "draw") this.shapes[index].group.focus({ preventScroll: true });
      this.#changed();
    } else {
      this.select(-1);
    }
  }

  #cancel(event) {
    if (this.drag?.pointer !== event.pointerId) return;
    if (this.drag.kind === "draw" && this.drag.index < this.boxes.length) this.remove(this.drag.index);
    this.drag = null;
  }

  #focus(event) {
    const index = this.shapes.findIndex((shape) => shape.group === event.target);
    if (index >= 0 && index !== this.selected && !this.isLocked) this.select(index);
  }

  #key(event) {
    const index = this.shapes.findIndex((shape) => shape.group === document.activeElement);
    if (index < 0 || this.isLocked || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.remove(index);
      this.shapes[this.selected]?.group.focus();
      return;
    }
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const box = this.boxes[index];
    const [width, height] = this.size;
    const stride = Math.max(1, Math.round(Math.min(width, height) / 200));
    if (event.shiftKey) {
      box.w = within(box.w + direction[0] * stride, SMALLEST, width - box.x);
      box.h = within(box.h + direction[1] * stride, SMALLEST, height - box.y);
    } else {
      box.x = within(box.x + direction[0] * stride, 0, width - box.w);
      box.y = within(box.y + direction[1] * stride, 0, height - box.h);
    }
    this.#changed();
  }

  #shape(index) {
    const group = part("g", "box", this.svg);
    place(group, { tabindex: 0, role: "button" });
    const shape = { group, halo: part("rect", "halo", group), edge: part("rect", "edge", group) };
    shape.tag = part("rect", "tag", group);
    shape.text = part("text", "", group);
    shape.text.textContent = index + 1;
    shape.handles = CORNERS.map((_, corner) => {
      const handle = part("circle", "handle", group);
      const grip = part("circle", "grip", group); // as large as a fingertip
      for (const element of [handle, grip]) {
        element.dataset.corner = corner;
        element.style.cursor = CURSORS[corner];
      }
      return [handle, grip];
    });
    return shape;
  }

  #layOut() {
    const unit = this.size[0] / Math.max(1, this.svg.getBoundingClientRect().width); // a pixel of the screen
    while (this.shapes.length > this.boxes.length) this.shapes.pop().group.remove();
    while (this.shapes.length < this.boxes.length) this.shapes.push(this.#shape(this.shapes.length));
    this.boxes.forEach((box, index) => this.#draw(this.shapes[index], box, index, unit));
  }

  #draw({ group, halo, edge, tag, text, handles }, { x, y, w, h }, index, unit) {
    const status = this.isLocked ? this.status?.[index] : null;
    group.setAttribute("class", "box");
    group.style.setProperty("--color", colorOf(this.colors, index, this.boxes.length));
    group.classList.toggle("is-selected", index === this.selected);
    group.classList.toggle("is-uncertain", status === "uncertain");
    group.classList.toggle("is-lost", status === "lost");
    const size = `x ${Math.round(x)}, y ${Math.round(y)}, ${Math.round(w)} wide, ${Math.round(h)} high`;
    const help = this.isLocked ? "" : " Arrow keys move it, with Shift they resize it, Delete removes it.";
    group.setAttribute("aria-label", `Target ${index + 1}: ${size}.${help}`);
    group.setAttribute("tabindex", this.isLocked ? -1 : 0);
    for (const rect of [halo, edge]) place(rect, { x, y, width: w, height: h });
    const side = 19 * unit;
    const top = y >= side ? y - side : y;
    place(tag, { x: x - unit, y: top, width: side, height: side, rx: 3 * unit });
    place(text, { x: x - unit + side / 2, y: top + side * 0.74, "font-size": 13 * unit });
    const out = [w, h].map((length) => Math.max(0, (ROOMY * unit - length) / 3)); // so that a small target is seen
    handles.forEach(([handle, grip], corner) => {
      const [right, bottom] = CORNERS[corner];
      const center = { cx: x + right * w + (2 * right - 1) * out[0], cy: y + bottom * h + (2 * bottom - 1) * out[1] };
      place(handle, { ...center, r: 5 * unit });
      place(grip, { ...center, r: Math.min(16 * unit, Math.max(8 * unit, Math.min(w, h) / 3)) });
    });
  }
}
