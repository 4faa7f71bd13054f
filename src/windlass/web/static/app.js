// What pages do beyond links and forms: look again when there is news, show times as the reader knows them, and keys.
"use strict";

const base = document.documentElement.dataset.base;
const status = document.getElementById("status");
const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

// Times

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function span(seconds) {
  const found = UNITS.findIndex(([, size]) => seconds >= size);
  if (found < 0) return "0 s";
  const [unit, size] = UNITS[found];
  const whole = Math.floor(seconds / size);
  if (found === 3 || whole >= 10) return `${whole} ${unit}`;
  const [smaller, part] = UNITS[found + 1];
  const rest = Math.floor((seconds - whole * size) / part);
  return rest ? `${whole} ${unit} ${rest} ${smaller}` : `${whole} ${unit}`;
}

function shown(moment, form) {
  if (form === "local") return zone.format(moment);
  if (form === "clock") return clock.format(moment);
  const age = (Date.now() - moment) / 1000;
  if (form === "since") return span(Math.max(0, age));
  return age >= 0 ? `${span(age)} ago` : `in ${span(-age)}`;
}

function tell() {
  for (const one of document.querySelectorAll("time[data-show]")) {
    const moment = new Date(one.dateTime);
    if (isNaN(moment)) continue;
    const text = shown(moment, one.dataset.show);
    if (one.textContent !== text) one.textContent = text;
    one.title = full.format(moment);
  }
}

// Live

let tag = "";
let looking = false;
let again = false;
let source = null;
let timer = null;
const WHY = { 401: "sign in again", 404: "this is gone", 503: "the store does not answer" };

function say(kind, text) {
  status.dataset.kind = kind;
  status.textContent = text;
}

async function look() {
  if (looking) {
    again = true;
    return;
  }
  looking = true;
  try {
    const headers = { "X-Live": "1", ...(tag && { "If-None-Match": tag }) };
    const answer = await fetch(location.href, { headers, redirect: "error" });
    if (answer.status === 200) {
      tag = answer.headers.get("ETag") || "";
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } else if (answer.status !== 304) {
      say("down", WHY[answer.status] || `cannot look: ${answer.status}`);
      return;
    }
    say("live", "live");
  } catch {
    say("down", "the dashboard does not answer");
  } finally {
    looking = false;
    if (again) {
      again = false;
      setTimeout(look, 250);
    }
  }
}

function show(page) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh) continue;
    for (const box of old.querySelectorAll("input[type=checkbox]:checked")) {
      const same = box.id && fresh.querySelector(`#${CSS.escape(box.id)}`);
      if (same) same.checked = true;
    }
    Idiomorph.morph(old, fresh, {
      callbacks: { beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS") },
    });
  }
  tell();
  choose();
}

function watch() {
  if (source || document.hidden || !document.querySelector("[data-live]")) return;
  source = new EventSource(`${base}/live`);
  source.onopen = () => {
    say("live", "live");
    look();
  };
  source.onmessage = look;
  source.onerror = () => (source?.readyState === EventSource.CLOSED ? poll() : say("down", "the dashboard does not answer"));
}

// Where there is no stream, as under WSGI, or none any more.
function poll() {
  timer ??= setInterval(look, 3000);
  look();
}

function rest() {
  clearInterval(timer);
  timer = null;
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? rest() : watch()));
document.addEventListener("submit", (event) => event.target.method === "post" && rest());
window.addEventListener("pagehide", rest);
window.addEventListener("pageshow", watch);

// Choosing rows

function choose() {
  const boxes = [...document.querySelectorAll("input[name=id][type=checkbox]")];
  const chosen = boxes.filter((box) => box.checked).length;
  for (const one of document.querySelectorAll("[data-chosen]")) one.textContent = chosen ? ` ${chosen}` : "";
  for (const one of document.querySelectorAll("button[data-choice]")) one.disabled = !chosen;
  const all = document.getElementById("all");
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
  }
}

document.addEventListener("change", (event) => {
  if (event.target.id === "all") {
    for (const box of document.querySelectorAll("input[name=id][type=checkbox]")) box.checked = event.target.checked;
  }
  if (event.target.matches("select[data-go]")) event.target.form.requestSubmit();
  choose();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = "copied";
});

// Keys

const GO = { o: "", q: "queues", j: "jobs", f: "failures", s: "schedules", w: "workers", l: "limits", a: "audit" };
let before = "";

function row(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement.closest("[data-row]"));
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
  if (next) next.querySelector("a").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const help = document.getElementById("help");
  const first = before;
  before = event.key;
  if (first === "g" && event.key in GO) location.href = `${base}/${GO[event.key]}`;
  else if (event.key === "/") {
    const search = document.getElementById("search");
    if (!search) return;
    search.focus();
    event.preventDefault();
  } else if (event.key === "?") help.open ? help.close() : help.showModal();
  else if (event.key === "j") row(1);
  else if (event.key === "k") row(-1);
  else if (event.key === "x") document.activeElement.closest("[data-row]")?.querySelector("input[name=id]")?.click();
  else if (event.key === "r" && document.querySelector("[data-key=r]")) document.querySelector("[data-key=r]").click();
});

tell();
choose();
setInterval(tell, 1000);
watch();
