// The list of targets beside the picture.

import { byId, colored, colorOf, make } from "./elements.js";

// `notes`: what stands beside each target's number; its place and size where there are none.
export function listTargets(editor, notes = []) {
  const rows = editor.boxes.map(({ x, y, w, h }, index) => {
    const [left, top, width, height] = [x, y, w, h].map(Math.round);
    const color = colorOf(editor.colors, index, editor.boxes.length);
    const number = colored(make("span", { className: "number" }, `${index + 1}`), color);
    const size = make("span", { className: "size" }, notes[index] ?? `${width} × ${height} at ${left}, ${top}`);
    const pick = make("button", { type: "button", className: "pick", disabled: editor.isLocked }, number, size);
    pick.setAttribute("aria-label", `Target ${index + 1}, ${size.textContent}`);
    pick.addEventListener("click", () => {
      editor.select(index);
      editor.shapes[index].group.focus();
    });
    const remove = make("button", { type: "button", className: "quiet remove" }, "×");
    remove.setAttribute("aria-label", `Remove target ${index + 1}`);
    remove.addEventListener("click", () => {
      editor.remove(index);
      byId("add").focus();
    });
    return make("li", { className: index === editor.selected && !editor.isLocked ? "is-selected" : "" }, pick, remove);
  });
  byId("targets").replaceChildren(...rows);
  byId("hint").hidden = rows.length > 0;
}
