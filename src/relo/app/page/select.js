// The page on which boxes are drawn on one image; they go to the program that waits for them.

import { BoxEditor } from "./editor.js";
import { asJson, ask, byId, showMessage } from "./elements.js";
import { listTargets } from "./targets.js";

const config = await (await ask("select/config")).json();
const editor = new BoxEditor(byId("boxes"), config.colors, changed);

function changed() {
  listTargets(editor);
  byId("done").disabled = !editor.boxes.length;
}

async function send() {
  try {
    await ask("select/done", asJson({ boxes: editor.asLists() }));
    document.body.dataset.phase = "farewell";
  } catch (error) {
    showMessage(error.message);
  }
}

editor.maximum = config.maxTargets;
editor.setPicture(config.width, config.height);
byId("stage").style.setProperty("--ratio", config.width / config.height);
byId("frame").src = "select/image";
byId("facts").textContent = `${config.width} × ${config.height}`;
byId("add").addEventListener("click", () => editor.add());
byId("done").addEventListener("click", send);
byId("message-close").addEventListener("click", () => showMessage(""));
changed();
