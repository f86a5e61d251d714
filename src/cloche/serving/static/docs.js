"use strict";
const form = document.getElementById("form");
const answer = document.getElementById("answer");
const status = document.getElementById("status");
const curl = document.getElementById("curl");
// behind a mount the page stands deeper than at the root
const base = new URL(form.dataset.root, location.href).href.slice(0, -1);
const path = `${base}/${form.dataset.path}`;
const quoted = "'" + curl.dataset.body.replaceAll("'", "'\\''") + "'";
const keyed = "keyed" in curl.dataset ? " -H 'authorization: Bearer clk_…'" : "";
curl.textContent = `curl -s ${path} -H 'content-type: application/json'${keyed} -d ${quoted}`;
for (const place of document.querySelectorAll(".origin")) place.textContent = base;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const headers = { "content-type": "application/json" };
  const key = document.getElementById("key").value.trim();
  if (key) headers.authorization = `Bearer ${key}`;
  const began = performance.now();
  try {
    const response = await fetch(path, { method: "POST", headers, body: document.getElementById("body").value });
    const took = (performance.now() - began).toFixed(1);
    const parts = response.headers.get("server-timing");
    status.textContent = `${response.status} in ${took} ms${parts ? ` (${parts})` : ""}`;
    const text = await response.text();
    try {
      answer.textContent = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      answer.textContent = text;
    }
  } catch (error) {
    status.textContent = "The server did not answer.";
    answer.textContent = String(error);
  }
  answer.hidden = false;
});
