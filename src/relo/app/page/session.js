// The page's session with the server: it lives as long as the page, and its files with it.

import { ask } from "./elements.js";

export class Session {
  // `handlers`: onState, onProgress, onLost (the session has ended), onReach (whether the server can be reached).
  static async open(handlers) {
    const { id } = await (await ask("sessions", { method: "POST" })).json();
    return new Session(id, handlers);
  }

  constructor(id, { onState, onProgress, onLost, onReach }) {
    this.path = `sessions/${id}`;
    this.events = new EventSource(`${this.path}/events`);
    this.events.addEventListener("state", (event) => onState(JSON.parse(event.data)));
    this.events.addEventListener("progress", (event) => onProgress(JSON.parse(event.data)));
    this.events.addEventListener("open", () => onReach(true));
    this.events.addEventListener("error", () => {
      if (this.events.readyState === EventSource.CLOSED) onLost();
      else onReach(false);
    });
  }

  // Tells the server to delete everything; it gets through even while the page goes.
  end() {
    this.events.close();
    navigator.sendBeacon(`${this.path}/close`);
  }

  upload(file, onSent) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", `${this.path}/video?name=${encodeURIComponent(file.name)}`);
      request.responseType = "json";
      request.upload.addEventListener("progress", (event) => onSent(event.loaded / Math.max(1, event.total)));
      request.addEventListener("load", () => {
        if (request.status < 300) return resolve(request.response);
        const sentence = request.response?.error || `The server answered ${request.status}.`;
        return reject(Object.assign(new Error(sentence), { status: request.status }));
      });
      request.addEventListener("error", () => reject(new Error("The file could not be sent; is the server still running?")));
      request.send(file);
    });
  }
}
