"use strict";

const $ = (selector) => document.querySelector(selector);
let csrf = "";
let events = null;
let timers = [];
let seen = 0;

class Refused extends Error {}

async function ask(method, path, body) {
  const headers = {};
  if (method === "POST") {
    headers["Content-Type"] = "application/json";
    headers["X-CSRF-Token"] = csrf;
  }
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  const answer = await response.json();
  if (response.status === 401) showLogin();
  if (!response.ok) throw new Refused(answer.error || response.statusText);
  return answer;
}

// -- words -------------------------------------------------------------------

function octets(number) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (number < 1024) return `${number.toFixed(unit !== "B" && number < 100 ? 1 : 0)} ${unit}`;
    number /= 1024;
  }
  return `${number.toFixed(1)} TiB`;
}

function age(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

const when = (seconds) => seconds === null ? "-" : new Date(seconds * 1000).toLocaleString();
const who = (each) => each.user === null ? each.client : `${each.user} (${each.client})`;
const asked = (each) => (each.command && each.command !== "connect" ? `${each.command} ` : "") + (each.destination ?? "-");

// All text goes in as text: whatever a client has called itself is never markup.
function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(cells) {
  const made = document.createElement("tr");
  for (const cell of cells) {
    if (cell instanceof Node) {
      const td = document.createElement("td");
      td.append(cell);
      made.append(td);
    } else {
      const [text, className] = Array.isArray(cell) ? cell : [cell];
      const td = element("td", text, className);
      td.title = text;
      made.append(td);
    }
  }
  return made;
}

// -- what is shown -----------------------------------------------------------

async function status() {
  const now = await ask("GET", "/v1/status");
  $("#version").textContent = now.version;
  $("#sessions").textContent = now.sessions;
  $("#loaded").textContent = now.reloads;
  $("#reloads").textContent = `reloads (${now.failed_reloads} failed)`;
  $("#trial").hidden = now.unconfirmed_until === null;
  if (now.unconfirmed_until !== null) {
    $("#trial").textContent = `The configuration is on trial; it is rolled back at ${when(now.unconfirmed_until)} unless somebody says: socksd confirm`;
  }
}

async function live() {
  const query = new URLSearchParams({ limit: 100 });
  for (const [name, value] of new FormData($("#filter"))) if (value) query.set(name, value);
  const count = $("#count");
  let answer;
  try {
    answer = await ask("GET", `/v1/sessions?${query}`);
  } catch (error) {
    if (error instanceof Refused) count.textContent = error.message;
    throw error;
  }
  const shown = answer.sessions.length;
  const text = shown < answer.count ? `${shown} of ${answer.count}` : `${answer.count}`;
  if (count.textContent !== text) count.textContent = text;
  const focused = document.activeElement?.dataset?.session;
  $("#live tbody").replaceChildren(...answer.sessions.map((each) => {
    const end = element("button", "End");
    end.type = "button";
    end.dataset.session = each.session;
    end.setAttribute("aria-label", `End session ${each.session}`);
    end.addEventListener("click", () => kill(each));
    return row([`${each.session}`, each.client, each.user ?? "-", each.state, asked(each), each.rule ?? "-",
      [age(each.seconds), "n"], [octets(each.up), "n"], [octets(each.down), "n"], end]);
  }));
  if (focused) $(`#live button[data-session="${focused}"]`)?.focus();
}

async function talkers() {
  const answer = await ask("GET", "/v1/talkers");
  $("#talkers tbody").replaceChildren(...answer.talkers.map((each) =>
    row([who(each), each.host, [`${each.sessions}`, "n"], [octets(each.up), "n"], [octets(each.down), "n"]])));
}

async function rules() {
  const answer = await ask("GET", "/v1/rules");
  $("#rules tbody").replaceChildren(...answer.rules.map((each) =>
    row([each.id, [each.action, each.action], [`${each.hits}`, "n"], [`${each.open}`, "n"], when(each.last)])));
}

async function traffic() {
  const { rates } = await ask("GET", "/v1/traffic");
  const last = rates.at(-1) ?? { up: 0, down: 0 };
  $("#up").textContent = `${octets(last.up)}/s`;
  $("#down").textContent = `${octets(last.down)}/s`;
  const peak = Math.max(1, ...rates.flatMap((each) => [each.up, each.down]));
  $("#peak").textContent = `peak ${octets(peak)}/s`;
  const end = last.time ?? 0;
  const x = (time) => 720 * (1 - (end - time) / 3600);
  const y = (rate) => 158 - 150 * rate / peak;
  const chart = $("#traffic");
  chart.replaceChildren();
  for (const quarter of [1, 2, 3]) draw(chart, "line", { x1: 180 * quarter, x2: 180 * quarter, y1: 0, y2: 160 });
  draw(chart, "line", { x1: 0, x2: 720, y1: 158, y2: 158 });
  for (const way of ["up", "down"]) {
    const points = rates.map((each) => `${x(each.time).toFixed(1)},${y(each[way]).toFixed(1)}`);
    if (points.length) draw(chart, "path", { class: way, d: `M${points.join("L")}` });
  }
}

function draw(chart, name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  chart.append(made);
}

function denial(each) {
  return row([new Date(each.time * 1000).toLocaleTimeString(), who(each), asked(each),
    [each.rule, "deny"], [each.detail, each.text].filter(Boolean).join(": ")]);
}

async function denials() {
  const answer = await ask("GET", "/v1/denials");
  $("#denials tbody").replaceChildren(...answer.denials.map(denial));
}

function listen() {
  events = new EventSource("/v1/events");
  events.addEventListener("open", () => { $("#connection").textContent = ""; denials().catch(() => {}); });
  events.addEventListener("error", () => {
    $("#connection").textContent = "no connection; trying again";
    // A stream that the server has ended is not taken up again by itself.
    if (events?.readyState === EventSource.CLOSED) ask("GET", "/v1/me").catch(() => {});
  });
  events.addEventListener("denied", (event) => {
    seen += 1;
    $("#denied").textContent = seen;
    const body = $("#denials tbody");
    body.prepend(denial(JSON.parse(event.data)));
    while (body.rows.length > 200) body.lastChild.remove();
  });
  events.addEventListener("missed", () => denials().catch(() => {}));
}

// -- what is done ------------------------------------------------------------

function kill(session) {
  const dialog = $("#sure");
  dialog.querySelector("p").textContent = `End session ${session.session}: ${who(session)} to ${asked(session)}?`;
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "end") return;
    try {
      await ask("POST", "/v1/kill", { session: session.session });
      await live();
    } catch (error) {
      $("#count").textContent = error.message;
    }
  };
  dialog.showModal();
}

async function explain(form) {
  const given = Object.fromEntries(new FormData(form));
  const question = { from: given.from, [given.command]: given.to };
  for (const key of ["user", "at"]) if (given[key]) question[key] = given[key];
  for (const key of ["group", "resolves"]) if (given[key]) question[key] = given[key].split(/[\s,]+/).filter(Boolean);
  const said = $("#explained");
  try {
    const answer = await ask("POST", "/v1/explain", question);
    const verdict = element("p", `${answer.verdict} by ${answer.rule}`, answer.verdict);
    if (answer.text) verdict.append(element("span", ` (${answer.text})`));
    const list = document.createElement("ol");
    for (const rule of answer.stages.at(-1).rules) {
      const matches = rule.matches === true ? "matches" : rule.matches === false ? "does not match" : "may match";
      const why = rule.key ? `: ${rule.key} = ${rule.wanted}; this is ${rule.fact}` : "";
      list.append(element("li", `${rule.action} ${rule.id} ${matches}${why}`, rule.id === answer.rule ? answer.verdict : "faint"));
    }
    const changes = answer.changes.map((each) =>
      element("p", `with ${each.facts.map((fact) => `${fact.key} = ${fact.value}`).join(" and ")}: ${each.verdict} by ${each.rule}`));
    said.replaceChildren(verdict, list, ...changes);
  } catch (error) {
    said.replaceChildren(element("p", error.message, "deny"));
  }
}

// -- who is there ------------------------------------------------------------

function repeat(what, seconds) {
  const run = () => { if (!document.hidden) what().catch(() => {}); };
  run();
  timers.push(setInterval(run, seconds * 1000));
}

function showDashboard(me) {
  csrf = me.csrf;
  $("#login").hidden = true;
  $("#visitor").hidden = false;
  $("#user").textContent = me.user;
  $("main").hidden = false;
  repeat(status, 2);
  repeat(live, 2);
  repeat(talkers, 5);
  repeat(rules, 5);
  repeat(traffic, 10);
  listen();
}

function showLogin() {
  timers.forEach(clearInterval);
  timers = [];
  events?.close();
  events = null;
  $("main").hidden = true;
  $("#visitor").hidden = true;
  if ($("#login").hidden) {
    $("#login").hidden = false;
    $("#login [name=user]").focus();
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && events) Promise.all([status(), live(), talkers(), rules(), traffic()]).catch(() => {});
});
$("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, said = form.querySelector(".said");
  try {
    const me = await ask("POST", "/v1/login", Object.fromEntries(new FormData(form)));
    form.reset();
    said.textContent = "";
    showDashboard(me);
  } catch (error) {
    said.textContent = error.message;
    form.querySelector("[name=password]").select();
  }
});
$("#logout").addEventListener("click", async () => {
  try { await ask("POST", "/v1/logout", {}); } finally { showLogin(); }
});
$("#filter").addEventListener("submit", (event) => { event.preventDefault(); live().catch(() => {}); });
$("#filter").addEventListener("change", () => live().catch(() => {}));
$("#explain").addEventListener("submit", (event) => { event.preventDefault(); explain(event.target); });
ask("GET", "/v1/me").then(showDashboard).catch(showLogin);
