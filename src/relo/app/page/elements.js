// Small helpers for elements, used by both pages.

export const byId = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function colored(element, color) {
  element.style.setProperty("--color", color);
  return element;
}

// The color of a target, as videos have it too: one that is alone has its own.
export function colorOf(colors, target, targets) {
  const list = targets === 1 ? colors.alone : colors.several;
  return list[target % list.length];
}

export const dark = matchMedia("(prefers-color-scheme: dark)");

// A color of a video as a line on the page's ground: as bright as stands out from it by 3 to 1, of the same hue.
export function legible(color) {
  const linear = color.match(/\d+/g).map((value) => ((Number(value) / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  const [least, most] = dark.matches ? [0.135, 1] : [0, 0.3];
  const wanted = Math.min(Math.max(luminance, least), most);
  const share = wanted > luminance ? (wanted - luminance) / (1 - luminance) : 0; // of white
  const scale = wanted < luminance ? wanted / luminance : 1;
  const values = linear.map((value) => Math.round(255 * (1.055 * (value * scale * (1 - share) + share) ** (1 / 2.4) - 0.055)));
  return `rgb(${values.map((value) => Math.max(0, value)).join(" ")})`;
}

export function showMessage(sentence) {
  byId("message-text").textContent = sentence;
  byId("message").hidden = !sentence;
  if (sentence) byId("message").scrollIntoView({ block: "nearest" });
}

export function speak(sentence) {
  byId("spoken").textContent = sentence;
}

// Sends a request; an answer that is an error is thrown with the server's sentence.
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server cannot be reached; is it still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw Object.assign(new Error(answer.error || `The server answered ${response.status}.`), { status: response.status });
}

export const asJson = (data) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(data),
});
