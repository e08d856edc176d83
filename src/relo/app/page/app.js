// The page: add a video, draw boxes, watch them tracked, download.

import { Curve } from "./curve.js";
import { acceptDrops } from "./drop.js";
import { BoxEditor } from "./editor.js";
import { asJson, ask, byId, colored, colorOf, dark, legible, make, showMessage, speak } from "./elements.js";
import { Session } from "./session.js";
import { listTargets } from "./targets.js";

const config = await (await ask("config")).json();
const editor = new BoxEditor(byId("boxes"), config.colors, boxesChanged);
const curve = new Curve(byId("curve-canvas"));
editor.maximum = config.maxTargets;

let session = null;
let video = null; // what the server says of it
let drawn = []; // boxes, as they were when tracking began
let mapTarget = 0;
let rate = null;
let isFollowed = false; // the server's job is shown: a connection that is made again tells of an earlier one, too

const phase = () => document.body.dataset.phase;
const size = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

function enter(name) {
  document.body.dataset.phase = name;
  editor.isLocked = name !== "ready";
  byId("track").disabled = !editor.boxes.length;
  listTargets(editor);
}

function describePage() {
  byId("model").textContent = `${config.model} · ${config.device}`;
  byId("limits").textContent =
    `Any common video format, up to ${config.maxMegabytes} MB and ${config.maxFrames.toLocaleString("en")} frames.`;
  byId("privacy").textContent = config.isLocal
    ? "The video stays on this machine, and is deleted when you close this page."
    : "The video is sent to this server, and is deleted when you close this page.";
  byId("curve-title").textContent = config.measure === "presence" ? "Presence" : "Score";
  byId("curve-note").textContent =
    config.sure === null ? "of the box that was found" : `probability that the box is right, marked below ${config.sure}`;
}

// Session

async function openSession() {
  const opened = await Session.open({
    onState: (state) => opened === session && takeState(state),
    onProgress: (progress) => opened === session && takeProgress(progress),
    onLost: () => opened === session && startAgain("The session has ended, and its files are deleted; add the video again."),
    onReach: (isReached) => opened === session && reached(isReached),
  });
  session = opened;
}

let unreachable = null;
function reached(isReached) {
  clearTimeout(unreachable);
  const sentence = "The server cannot be reached; is it still running?";
  if (!isReached) unreachable = setTimeout(() => showMessage(sentence), 2000);
  else if (byId("message-text").textContent === sentence) showMessage("");
}

async function startAgain(sentence = "") {
  session?.end();
  session = null;
  byId("player").removeAttribute("src");
  byId("player").load();
  editor.setBoxes([]);
  enter("empty");
  showMessage(sentence);
  await guarded(openSession);
}

// Runs what may fail; the person reads the sentence, and can go on.
async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    if (error.status === 404 && session) await startAgain(error.message);
    else showMessage(error.message);
    return undefined;
  }
}

// Adding a video

async function addVideo(files) {
  if (phase() === "sending") return showMessage("A video is on its way; wait until it is there.");
  if (files.length !== 1) return showMessage("Add one video at a time.");
  const [file] = files;
  if (file.size > config.maxMegabytes * 1e6) {
    return showMessage(`${file.name} has ${size(file.size)}; this server takes at most ${config.maxMegabytes} MB.`);
  }
  showMessage("");
  enter("sending");
  showSent(0);
  try {
    if (!session) await openSession();
    video = await session.upload(file, showSent);
  } catch (error) {
    video = null;
    if (error.status === 404) return startAgain(error.message);
    enter("empty");
    return showMessage(error.message);
  }
  editor.setBoxes([]);
  showVideo();
  return undefined;
}

function showSent(share) {
  byId("upload-bar").value = share;
  byId("upload-text").textContent = share < 1 ? `Sending… ${Math.round(100 * share)} %` : "Reading the video…";
}

function showVideo() {
  byId("name").textContent = byId("name").title = video.name;
  isFollowed = false;
  const length = video.count === null ? "" : ` · ${count(video.count, "frame")}`;
  byId("facts").textContent = `${video.width} × ${video.height}${length} · ${+video.framesPerSecond.toFixed(2)} per second`;
  byId("stage").style.setProperty("--ratio", video.width / video.height);
  editor.setPicture(video.width, video.height);
  byId("first").max = Math.max(0, (video.count ?? config.maxFrames) - 2);
  byId("first").value = 0;
  showFirstFrame();
  enter("ready");
  speak("The first frame is shown. Draw a box around each target.");
}

// The first frame

let asked = 0;
async function showFirstFrame() {
  const index = Number(byId("first").value);
  byId("first-output").value = index;
  const number = ++asked;
  await new Promise((resolve) => setTimeout(resolve, 60)); // while the slider moves, only where it rests is fetched
  if (number !== asked) return;
  const picture = await guarded(async () => (await ask(`${session.path}/frames/${index}`)).blob());
  if (number === asked && picture) showPicture(URL.createObjectURL(picture), `Frame ${index} of the video`);
}

function showPicture(address, description) {
  const image = byId("frame");
  const before = image.src;
  image.src = address;
  image.alt = description;
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
}

function stepFirst(frames) {
  byId("first").value = Number(byId("first").value) + frames;
  showFirstFrame();
}

function boxesChanged() {
  listTargets(editor);
  byId("track").disabled = !editor.boxes.length;
}

// Tracking

async function track() {
  showMessage("");
  drawn = editor.asLists();
  byId("track").disabled = true;
  curve.clear(config.colors, config.sure);
  curve.first = Number(byId("first").value);
  mapTarget = 0;
  listMapTargets();
  showProgress(0, null);
  rate = null;
  isFollowed = true;
  const body = { start: curve.first, boxes: drawn };
  const job = await guarded(async () => (await ask(`${session.path}/track`, asJson(body))).json());
  byId("track").disabled = !editor.boxes.length;
  if (!job) {
    isFollowed = false;
    return;
  }
  curve.total = job.total;
  if (phase() === "ready") enter("tracking");
}

function takeProgress({ from, records, total, rate: lately, view }) {
  if (!isFollowed) return;
  if (phase() === "ready") enter("tracking");
  rate = lately ?? rate;
  curve.total = total;
  curve.take(from, records, config.measure);
  curve.draw();
  showProgress(from + records.length, total);
  if (view && phase() === "tracking") {
    showPicture(`data:image/jpeg;base64,${view.image}`, `Frame ${view.index}`);
    editor.setBoxes(view.boxes, view.status);
    listTargets(editor, notes(records.at(-1)));
    const map = view.maps[mapTarget];
    byId("map").hidden = !map;
    if (map) byId("map-image").src = `data:image/png;base64,${map}`;
  }
}

// How sure the tracker is of each target.
const notes = (record) => record.boxes.map((_, target) => {
  const value = record[config.measure][target];
  if (record.status[target] === "lost") return "lost";
  return value === null ? "" : `${config.measure} ${value.toFixed(2)}`;
});

function showProgress(frames, total) {
  const bar = byId("progress");
  if (total) bar.value = frames / total;
  else bar.removeAttribute("value");
  const left = total && rate ? ` · ${Math.ceil((total - frames) / rate)} s left` : "";
  const speed = rate ? ` · ${rate.toFixed(rate < 10 ? 1 : 0)} frames/s` : "";
  byId("progress-text").textContent = `${frames.toLocaleString("en")}${total ? ` of ${total.toLocaleString("en")}` : ""} frames${speed}${left}`;
}

function listMapTargets() {
  const choices = drawn.map((_, target) => make("option", { value: target }, `${target + 1}`));
  byId("map-targets").replaceChildren(...choices);
  byId("map-targets").hidden = choices.length < 2;
}

function takeState(state) {
  if (phase() !== "tracking") return;
  if (["done", "stopped", "failed"].includes(state.phase)) showResult(state);
  else if (state.phase === "ready") enter("ready");
}

// The result

function showResult({ phase: end, error, remarks, files, frames }) {
  const speed = rate ? `, ${rate.toFixed(rate < 10 ? 1 : 0)} per second` : "";
  byId("facts").textContent = `${count(frames, "frame")} tracked${end === "stopped" ? ", then stopped" : ""}${speed}`;
  byId("files").replaceChildren(...files.map(({ name, label, bytes }) => {
    const link = make("a", { href: `${session.path}/files/${name}?download`, download: "" });
    link.append(make("span", {}, label), make("span", {}, `${name.split(".").pop()}, ${size(bytes)}`));
    return make("li", {}, link);
  }));
  byId("remarks").replaceChildren(...remarks.map((remark) => make("li", {}, remark)));
  byId("remarks-part").hidden = !remarks.length;
  curve.total = frames;
  summarize();
  const film = files.find(({ name }) => name.startsWith("tracked."));
  byId("player").hidden = !film;
  enter("done");
  if (film) {
    byId("player").src = `${session.path}/files/${film.name}`;
    byId("player").play().catch(() => {}); // a browser may ask for a click first
  }
  showMessage(end === "failed" ? `${error} What was tracked until then is below.` : "");
  speak(`${count(frames, "frame")} tracked. The video and the boxes can be downloaded.`);
  curve.draw();
}

function summarize() {
  byId("curve-summary").replaceChildren(...curve.values.map((_, target) => {
    const dot = colored(make("span", { className: "dot" }), legible(colorOf(config.colors, target, curve.values.length)));
    return make("li", {}, dot, `Target ${target + 1}: ${curve.inWords(target)}`);
  }));
}

function drawAgain() {
  byId("player").pause();
  editor.setBoxes(drawn);
  byId("curve-summary").replaceChildren();
  showMessage("");
  const first = curve.first;
  showVideo();
  byId("first").value = first;
  showFirstFrame();
}

function followPlayer() {
  const player = byId("player");
  if (phase() === "done" && player.duration) {
    const frame = curve.frameAt(player.currentTime);
    if (frame !== curve.cursor) {
      curve.cursor = frame;
      curve.draw();
    }
  }
  requestAnimationFrame(followPlayer);
}

curve.onSeek = (frame) => {
  const player = byId("player");
  if (phase() === "done" && player.duration) player.currentTime = curve.timeOf(frame);
};

// What the person does

byId("file").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  if (files.length) addVideo(files);
});
byId("drop").addEventListener("click", (event) => phase() === "sending" && event.preventDefault());
byId("first").addEventListener("input", showFirstFrame);
byId("first-back").addEventListener("click", () => stepFirst(-1));
byId("first-forward").addEventListener("click", () => stepFirst(1));
byId("add").addEventListener("click", () => editor.add());
byId("track").addEventListener("click", track);
byId("map-targets").addEventListener("change", (event) => { mapTarget = Number(event.target.value); });
byId("stop").addEventListener("click", () => guarded(() => ask(`${session.path}/stop`, { method: "POST" })));
byId("again").addEventListener("click", drawAgain);
byId("new").addEventListener("click", () => startAgain());
byId("message-close").addEventListener("click", () => showMessage(""));

acceptDrops((files) => {
  if (phase() === "tracking") showMessage("Stop tracking before you add another video.");
  else addVideo(files);
});
dark.addEventListener("change", () => phase() === "done" && summarize());
addEventListener("pagehide", () => session?.end());
addEventListener("pageshow", (event) => event.persisted && location.reload());

describePage();
await guarded(openSession);
requestAnimationFrame(followPlayer);
document.body.dataset.ready = "true";
