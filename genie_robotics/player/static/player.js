"use strict";
// One WebSocket: sends JSON, receives JSON or (length, JSON header, bytes). Actions are sent one by one, each after the
// frame of the last one has arrived.

const byId = (id) => document.getElementById(id);
const IDLE_MS = 350; // without an action, before previews are requested
const CLOSED = {
  4001: "Too many others are playing. Try again later.",
  4002: "Disconnected, because nothing was played for a while. Reload the page to play.",
  4003: "This address may not connect to the player. Add it with --origins.",
};

let socket, world, step = 0, busy = false, ended = "";
let queue = []; // messages that wait for the previous frame
let errors = []; // distance in cm by step, with a simulator
let sentAt = 0, latencies = [], frameTimes = [], idleTimer = 0;

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => (typeof event.data === "string" ? onText(JSON.parse(event.data)) : onBinary(event.data));
  socket.onclose = (event) => {
    ended = CLOSED[event.code] || "The player has ended. Start it again and reload the page.";
    say(ended, true);
    document.querySelectorAll("button, input").forEach((element) => (element.disabled = true));
  };
}

function say(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

// Messages are dropped while the connection closes; `onclose` then shows why it closed.
function send(message, bytes) {
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify(message));
  if (bytes) socket.send(bytes);
}

// Keys pressed before the frame arrives wait, but only a few, so that the world stops soon after the last key.
function enqueue(message, longest = 3) {
  if (queue.length < longest) queue.push(message);
  next();
}

function next() {
  if (busy || !queue.length || socket.readyState !== WebSocket.OPEN) return;
  busy = true;
  sentAt = performance.now();
  clearTimeout(idleTimer);
  send(queue.shift());
}

function onText(message) {
  if (message.type === "hello") {
    world = message;
    byId("world").textContent = message.world;
    byId("temperature").value = message.temperature;
    byId("maskgit").value = message.maskgit_steps;
    byId("last-key").textContent = Math.min(9, message.names.length);
    byId("last-code").textContent = Math.min(9, message.names.length) - 1;
    buildActions(message.names);
    buildStarts(message.starts);
    busy = true; // the first frame is on its way
    say("Ready. Press a key.");
  } else if (message.type === "branch") {
    const button = document.createElement("button");
    button.textContent = `↩ ${message.step}`;
    button.title = `Back to step ${message.step}`;
    button.setAttribute("aria-label", button.title);
    button.onclick = () => enqueue({ type: "switch", branch: message.branch });
    byId("branches").append(button);
    say(`Kept step ${message.step}.`);
  } else if (message.type === "inferred") {
    say(`The clip has ${message.codes.length} actions, codes ${message.codes.join(" ")}.`);
    byId("codes").value = message.codes.join(" ");
    play(message.codes);
  } else if (message.type === "settings") {
    say(`Temperature ${message.temperature}, ${message.maskgit_steps} MaskGIT steps.`);
  } else if (message.type === "error") {
    busy = false;
    say(message.message, true);
    next();
  }
}

async function onBinary(data) {
  const length = new DataView(data).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const content = new Uint8Array(data, 4 + length);
  if (header.type === "saved") return download(header, content);
  const picture = await createImageBitmap(new Blob([content], { type: "image/png" }));
  if (header.type === "preview") return header.step === step ? preview(picture) : undefined;
  const canvas = byId("dream");
  const width = header.simulated ? picture.width / 2 : picture.width;
  draw(canvas, picture, 0, width);
  if (header.simulated) draw(byId("simulated"), picture, width, width);
  byId("simulated").hidden = byId("comparison").hidden = !header.simulated;
  step = header.step;
  busy = false;
  measure(header);
  if (header.simulated) drawError(header);
  document.querySelectorAll("#actions button").forEach((b, code) => b.classList.toggle("now", code === header.code));
  const action = header.code === null ? "" : `, code ${header.code} ${world.names[header.code]}`;
  canvas.setAttribute("aria-label", `Step ${step}${action}, from ${header.start}`);
  byId("undo").disabled = byId("restart").disabled = !header.can_undo;
  next();
  if (!busy) idleTimer = setTimeout(() => send({ type: "preview" }), IDLE_MS);
}

function draw(canvas, picture, left, width) {
  canvas.width = width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, left, 0, width, picture.height, 0, 0, width, picture.height);
}

function drawError(header) {
  errors = errors.slice(0, header.step);
  errors[header.step] = header.error_cm;
  const recent = errors.slice(-100);
  const largest = Math.max(5, ...recent.map((value) => value || 0));
  const points = recent.map((value, i) => `${(300 * i) / Math.max(1, recent.length - 1)},${58 - (54 * (value || 0)) / largest}`);
  byId("error").innerHTML = `<polyline points="${points.join(" ")}"></polyline>`;
  const text = `The arms are ${header.error_cm.toFixed(1)} cm apart, as the latent action model reads the dream. Height of the plot: ${largest.toFixed(0)} cm.`;
  byId("error-now").textContent = text;
  byId("error").setAttribute("aria-label", text);
}

function measure(header) {
  const now = performance.now();
  if (sentAt && header.code !== null) latencies = [...latencies.slice(-49), now - sentAt];
  sentAt = now; // the next frame of a sequence is timed from this one
  frameTimes = [...frameTimes.filter((time) => now - time < 2000), now];
  const sorted = [...latencies].sort((a, b) => a - b);
  const typical = sorted.length ? `, ${Math.round(sorted[sorted.length >> 1])} ms from key to frame` : "";
  const rate = frameTimes.length > 2 ? `, ${((frameTimes.length - 1) * 1000 / (now - frameTimes[0])).toFixed(1)} frames/s` : "";
  const trust = header.trust === undefined ? "" : `, trust ${header.trust.toFixed(2)}`;
  byId("figures").textContent = `step ${step}${trust}${typical}${rate}`;
}

function buildActions(names) {
  byId("actions").replaceChildren(...names.map((name, code) => {
    const button = document.createElement("button");
    const label = document.createElement("span");
    const key = document.createElement("kbd");
    key.textContent = code + 1;
    label.append(key, ` ${code} ${name}`);
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    button.append(label, canvas);
    button.setAttribute("aria-label", `Code ${code}${name ? `: ${name}` : ""}, key ${code + 1}`);
    button.onclick = () => enqueue({ type: "act", code });
    return button;
  }));
}

function buildStarts(starts) {
  byId("starts").replaceChildren(...starts.map((name, number) => {
    const button = document.createElement("button");
    const picture = document.createElement("img");
    picture.src = `/starts/${number}.png`;
    picture.alt = "";
    const label = document.createElement("span");
    label.textContent = name;
    button.append(picture, label);
    button.onclick = () => begin({ type: "start", number });
    return button;
  }));
}

function begin(message) {
  queue = [];
  byId("branches").replaceChildren();
  enqueue(message);
}

function preview(picture) {
  const size = picture.height;
  document.querySelectorAll("#actions canvas").forEach((canvas, code) => {
    canvas.width = canvas.height = size;
    canvas.getContext("2d").drawImage(picture, code * size, 0, size, size, 0, 0, size, size);
  });
}

function play(codes) { codes.forEach((code) => enqueue({ type: "act", code }, 200)); }

function download(header, content) {
  const types = { mp4: "video/mp4", gif: "image/gif", json: "application/json" };
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  save(new Blob([content], { type: types[header.format] }), `dream.${header.format}`);
  if (header.format !== "json") {
    save(new Blob([JSON.stringify(header.trace, null, 1)], { type: types.json }), "dream.json");
  }
  say("Saved, with its actions in dream.json.");
}

async function upload(input, kind) {
  const file = input.files[0];
  input.value = "";
  if (!file) return;
  if (file.size > world.limits.upload_bytes) {
    return say(`The file must have at most ${world.limits.upload_bytes >> 20} MB.`, true);
  }
  const bytes = await file.arrayBuffer();
  queue = [];
  byId("branches").replaceChildren();
  busy = true;
  say("Sending…");
  send({ type: "upload", kind }, bytes);
}

byId("undo").onclick = () => enqueue({ type: "undo", steps: 1 });
byId("restart").onclick = () => { queue = []; enqueue({ type: "restart" }); };
byId("branch").onclick = () => send({ type: "branch" });
byId("picture").onchange = (event) => upload(event.target, "image");
byId("clip").onchange = (event) => upload(event.target, "clip");
document.querySelectorAll("[data-save]").forEach((button) => {
  button.onclick = () => send({ type: "save", format: button.dataset.save });
});
byId("sequence").onsubmit = (event) => {
  event.preventDefault();
  const codes = (byId("codes").value.match(/\d+/g) || []).map(Number);
  if (!codes.length || codes.some((code) => code >= world.names.length)) {
    return say(`Codes must be 0 to ${world.names.length - 1}, separated by spaces.`, true);
  }
  play(codes);
};
for (const id of ["temperature", "maskgit"]) {
  byId(id).onchange = () => send({
    type: "settings", temperature: Number(byId("temperature").value), maskgit_steps: Number(byId("maskgit").value),
  });
}
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey || !world || ended) return;
  const code = Number(event.key) - 1;
  if (event.key >= "1" && event.key <= "9" && code < world.names.length) enqueue({ type: "act", code });
  else if (event.key === "z" || event.key === "Backspace") enqueue({ type: "undo", steps: 1 });
  else if (event.key === "r") byId("restart").click();
  else if (event.key === "b") byId("branch").click();
  else return;
  event.preventDefault();
});
connect();
