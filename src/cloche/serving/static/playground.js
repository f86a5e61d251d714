"use strict";
const $ = (id) => document.getElementById(id);
const form = $("form");
const name = form.dataset.deployment;
// behind a mount the page stands deeper than at the root
const base = new URL("..", location.href).href.slice(0, -1);
const path = `${base}/predict/${name}`;
const controls = [...document.querySelectorAll(".control")];
const examples = JSON.parse($("examples").textContent);
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const PAUSE_MS = 250;
const MOST_SHARES = 10;
let shownExample = 0;
let checking = 0;
let timer = 0;

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A control's value as JSON text; what is no number or no JSON goes as text, for the server to say what is wrong. */
function written(control) {
  const { kind, missing } = control.dataset;
  const text = control.querySelector("input, textarea, select").value;
  if (text === "" && missing !== undefined) return "null";
  if (kind === "choice") return text || "null";
  if (kind === "number") return NUMBER.test(text.trim()) ? text.trim() : JSON.stringify(text);
  if (kind === "text" || kind === "long") return JSON.stringify(text);
  try {
    JSON.parse(text);
    return text;
  } catch {
    return kind === "whole" ? text : JSON.stringify(text);
  }
}

function body() {
  if (controls.length === 1 && controls[0].dataset.kind === "whole") return written(controls[0]);
  return `{${controls.map((one) => `${JSON.stringify(one.dataset.name)}: ${written(one)}`).join(", ")}}`;
}

function fill(row) {
  for (const control of controls) {
    const { kind } = control.dataset;
    const place = control.querySelector("input, textarea, select");
    const value = kind === "whole" ? row : row[control.dataset.name];
    if (value === null) place.value = "";
    else if (kind === "text" || kind === "long") place.value = value;
    else place.value = JSON.stringify(value, null, kind === "whole" ? 2 : 0);
  }
}

function key() {
  return $("key") ? $("key").value.trim() : "";
}

function headers() {
  const given = { "content-type": "application/json" };
  if (key()) given.authorization = `Bearer ${key()}`;
  return given;
}

function say(problems) {
  $("general").textContent = "";
  for (const control of controls) {
    control.classList.remove("bad", "odd");
    control.querySelector(".said").textContent = "";
    control.querySelector("input, textarea, select").removeAttribute("aria-invalid");
  }
  for (const problem of problems) {
    const words = problem.answered ? `${problem.message.replace(/ in row 0$/, "")}; answered all the same` : problem.message.replace(/ (of|in|from) row 0\b/, "");
    const control = controls.find((one) => one.dataset.kind === "whole" || one.dataset.name === problem.field);
    if (!control) {
      $("general").textContent += `${words} `;
      continue;
    }
    control.classList.add(problem.answered ? "odd" : "bad");
    control.querySelector(".said").textContent += `${words} `;
    if (!problem.answered) control.querySelector("input, textarea, select").setAttribute("aria-invalid", "true");
  }
}

async function check() {
  const number = ++checking;
  try {
    const response = await fetch(`${base}/playground/${name}/check`, { method: "POST", headers: headers(), body: body() });
    if (response.ok && number === checking) say((await response.json()).problems);
  } catch {
    // the server is away; asking will say so
  }
}

function snippets() {
  const row = body();
  const url = path;
  const keyed = "keyed" in form.dataset;
  const quoted = `'${row.replaceAll("'", "'\\''")}'`;
  $("curl").textContent = `curl -s ${url} -H 'content-type: application/json'${keyed ? " -H 'authorization: Bearer clk_…'" : ""} -d ${quoted}`;
  $("python").textContent = `import cloche\n\nwith cloche.Client("${base}"${keyed ? ', key="clk_…"' : ""}) as client:\n    print(client.predict(${JSON.stringify(name)}, ${python(row)}))`;
  $("javascript").textContent = `const response = await fetch(${JSON.stringify(url)}, {\n  method: "POST",\n  headers: { "content-type": "application/json"${keyed ? ', authorization: "Bearer clk_…"' : ""} },\n  body: JSON.stringify(${row}),\n});\nconsole.log((await response.json()).prediction);`;
}

/** JSON's three words outside of texts, as Python has them. */
function python(row) {
  const words = { true: "True", false: "False", null: "None" };
  return row.replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (found) => words[found] ?? found);
}

function shares(title, values) {
  const part = make("div");
  part.append(make("h3", "", title));
  const ranked = Object.entries(values).sort((a, b) => b[1] - a[1]);
  for (const [label, value] of ranked.slice(0, MOST_SHARES)) {
    const row = make("div", "share");
    const track = make("div", "track");
    const fillTo = make("div");
    fillTo.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
    track.append(fillTo);
    row.append(make("span", "name", label), track, make("span", "number", value.toFixed(4)));
    part.append(row);
  }
  if (ranked.length > MOST_SHARES) part.append(make("p", "takes", `and ${ranked.length - MOST_SHARES} more`));
  return part;
}

function show(status, answer) {
  const shown = $("shown");
  shown.replaceChildren();
  if (status !== 200) {
    shown.append(make("p", "value refused", `${status} ${answer.title || ""}`), make("p", "", answer.detail || ""));
    return;
  }
  for (const [output, value] of Object.entries(answer.prediction)) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      shown.append(shares(output, value));
    } else {
      const text = typeof value === "object" ? JSON.stringify(value) : String(value);
      shown.append(make("h3", "", output), make("p", text.length > 60 ? "" : "value", text.length > 400 ? `${text.slice(0, 400)}…` : text));
    }
  }
}

function times(timing, took) {
  const told = Object.fromEntries([...(timing || "").matchAll(/(\w+);dur=([\d.]+)/g)].map((found) => [found[1], Number(found[2])]));
  const parts = [["queue", told.queue ?? 0, "queue"], ["model", told.model ?? 0, "model"]];
  parts.push(["rest", Math.max(0, took - parts[0][1] - parts[1][1]), "network and the rest"]);
  const legend = parts.map(([, value, words]) => `${words} ${value.toFixed(2)} ms`);
  $("bar").replaceChildren();
  $("legend").replaceChildren();
  parts.forEach(([className, value], at) => {
    const piece = make("div", className);
    piece.style.flex = `${value} 0 auto`;
    $("bar").append(piece);
    const line = make("li");
    line.append(make("span", className), legend[at]);
    $("legend").append(line);
  });
  $("legend").append(make("li", "", `together ${took.toFixed(2)} ms`));
  $("bar").setAttribute("aria-label", legend.join(", "));
  $("time").hidden = false;
}

async function ask() {
  const began = performance.now();
  let response;
  let text;
  try {
    response = await fetch(path, { method: "POST", headers: headers(), body: body() });
    text = await response.text();
  } catch {
    $("shown").replaceChildren(make("p", "value refused", "The server did not answer."));
    return;
  }
  const took = performance.now() - began;
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { detail: text };
  }
  show(response.status, answer);
  times(response.headers.get("server-timing"), took);
  $("raw").hidden = false;
  $("raw").querySelector("pre").textContent = JSON.stringify(answer, null, 2);
  if (answer.errors) say(answer.errors);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
form.addEventListener("input", () => {
  snippets();
  clearTimeout(timer);
  timer = setTimeout(check, PAUSE_MS);
});
if ($("another")) {
  $("another").addEventListener("click", () => {
    shownExample = (shownExample + 1) % examples.length;
    fill(examples[shownExample]);
    $("shown").replaceChildren(make("p", "takes", "Not asked yet."));
    $("time").hidden = $("raw").hidden = true;
    snippets();
    check();
  });
}
snippets();
