// The board on the projector. It asks for the numbers four times a second and draws them; what it
// is told, names included, is put in as text, never as markup.
"use strict";

const POLL_MS = 250;
const HISTORY = 60; // points of throughput, one a second
const FEWEST = 6; // so many requests fill a lane at least,
const MOST = 16; // and so many at most: one who sends thousands must not make the others invisible
const UNNAMED = "unnamed"; // what the endpoint calls an agent whose client sends no name
const byId = (id) => document.getElementById(id);
const shown = (text) => text; // marks what the class reads: the server puts it in their language

// ---------------------------------------------------------------- drawing

/** A number as a projector shows it. */
function figure(value) {
  if (value >= 10000) return `${Math.round(value / 1000)}k`;
  return String(value >= 100 ? Math.round(value) : Math.round(value * 10) / 10);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const lanes = new Map(); // learner -> the elements of their lane

function newLane(learner) {
  const item = element("li");
  const lane = {
    item,
    name: element("span", "name", learner),
    track: element("span", "track"),
    over: element("span", "over"),
    done: element("span", "done"),
    no: element("span", "no"),
    told: element("span", "hidden-text"),
    agents: new Map(),
  };
  lane.name.title = learner;
  lane.track.append(lane.over);
  for (const part of ["track", "done", "no"]) lane[part].setAttribute("aria-hidden", "true");
  item.append(lane.name, lane.track, lane.done, lane.no, lane.told);
  return lane;
}

function newAgent(name) {
  const agent = {
    block: element("span", "agent"),
    answering: element("span", "part answering"),
    waiting: element("span", "part waiting"),
    label: element("span", "label"),
    text: element("span", "whole"),
  };
  agent.label.append(agent.text, element("span", "initial", name === UNNAMED ? "" : [...name][0]));
  agent.block.append(agent.answering, agent.waiting, agent.label);
  agent.block.title = name;
  return agent;
}

function inFlight(row) {
  return row.agents.reduce((sum, [, now, queued]) => sum + now + queued, 0);
}

/** How much a learner has asked, whatever became of it. */
function asked(row) {
  return inFlight(row) + row.answered + row.refused + row.errors;
}

function drawLane(lane, row, most) {
  const seen = new Set();
  let answering = 0, waiting = 0;
  const scale = Math.max(most, inFlight(row));
  row.agents.forEach(([name, now, queued]) => {
    seen.add(name);
    answering += now;
    waiting += queued;
    if (!lane.agents.has(name)) {
      lane.agents.set(name, newAgent(name));
      lane.track.insertBefore(lane.agents.get(name).block, lane.over);
    }
    const agent = lane.agents.get(name);
    agent.block.style.flexBasis = `${(100 * (now + queued)) / scale}%`;
    agent.answering.style.flexGrow = now;
    agent.waiting.style.flexGrow = queued;
    agent.waiting.hidden = !queued;
    agent.answering.hidden = !now;
    agent.block.classList.toggle("queued", queued > 0);
    const words = [name === UNNAMED ? "" : name, now + queued > 1 ? now + queued : ""];
    setText(agent.text, words.join(" ").trim());
  });
  for (const [name, agent] of lane.agents) {
    if (seen.has(name)) continue;
    agent.block.remove();
    lane.agents.delete(name);
  }
  setText(lane.over, answering + waiting > most ? figure(answering + waiting) : "");
  lane.item.classList.toggle("absent", !asked(row));
  setText(lane.done, asked(row) ? figure(row.answered) : "");
  setText(lane.no, row.refused ? figure(row.refused) : "");
  const told = asked(row)
    ? shown(`: ${answering} being answered, ${waiting} waiting, ${row.answered} answered, ${row.refused} refused, ${row.errors} other errors`)
    : shown(": has not asked yet");
  setText(lane.told, told);
}

function drawLanes(rows) {
  const most = Math.min(MOST, Math.max(FEWEST, ...rows.map(inFlight)));
  const list = byId("lanes");
  const columns = rows.length <= 10 ? 1 : rows.length <= 36 ? 2 : 3;
  list.style.setProperty("--columns", columns);
  list.style.setProperty("--rows", Math.max(8, Math.ceil(rows.length / columns)));
  const names = new Set(rows.map((row) => row.learner));
  for (const [learner, lane] of lanes) {
    if (names.has(learner)) continue;
    lane.item.remove();
    lanes.delete(learner);
  }
  rows.forEach((row, index) => {
    if (!lanes.has(row.learner)) lanes.set(row.learner, newLane(row.learner));
    const lane = lanes.get(row.learner);
    if (list.children[index] !== lane.item) list.insertBefore(lane.item, list.children[index] ?? null);
    drawLane(lane, row, most);
  });
  document.body.classList.toggle("empty", !rows.some(asked)); // listed names alone are nobody
}

function drawTable(numbers) {
  if (!byId("as-table").open) return;
  const rows = numbers.learners.map((row) => {
    const line = element("tr");
    const name = element("th", "", row.learner);
    name.scope = "row";
    const sum = (which) => row.agents.reduce((total, count) => total + count[which], 0);
    const agents = row.agents.map(([agent, now, queued]) => `${agent} ${now + queued}`).join(", ");
    const cells = [agents, sum(1), sum(2), row.answered, row.refused, row.errors, row.tokens];
    line.append(name, ...cells.map((cell) => element("td", "", String(cell))));
    return line;
  });
  byId("rows").replaceChildren(...rows);
  setText(
    byId("more"),
    shown(`All: ${numbers.in_flight} in flight, ${numbers.gone} hung up, ${numbers.strangers} without a name of this class.`),
  );
}

/** An exercise, after how many tries it was solved, or how many there have been. */
function tried(exercise, [tries, solved]) {
  if (!solved) return shown(`${exercise} not yet, tries: ${tries}`);
  return tries > 1 ? shown(`${exercise} after ${tries} tries`) : exercise;
}

/** Who has solved what, a line for each lesson: "02b: 1 · 2 after 4 tries". */
function drawExercises(exercises, learners) {
  const answered = new Map(learners.map((row) => [row.learner, row.answered]));
  const names = new Set([...answered.keys(), ...Object.keys(exercises).sort()]);
  const rows = [...names].map((learner) => {
    const lessons = new Map();
    for (const [which, how] of Object.entries(exercises[learner] ?? {}).sort()) {
      const [lesson, exercise] = which.split(".");
      lessons.set(lesson, [...(lessons.get(lesson) ?? []), tried(exercise, how)]);
    }
    const name = element("th", "", learner);
    name.scope = "row";
    const told = element("td");
    told.append(...[...lessons].map(([lesson, all]) => element("div", "", `${lesson}: ${all.join(" · ")}`)));
    const line = element("tr");
    line.append(name, element("td", "", String(answered.get(learner) ?? 0)), told);
    return line;
  });
  byId("tried").replaceChildren(...rows);
}

const rates = [];
let sampledAt = 0;

function drawHistory(rate) {
  const now = performance.now();
  if (now - sampledAt < 1000) return;
  sampledAt = now;
  rates.push(rate);
  if (rates.length > HISTORY) rates.shift();
  const most = Math.max(1, ...rates);
  const points = rates.map((value, index) => {
    const x = ((HISTORY - rates.length + index + 1) * 120) / HISTORY;
    return `${x} ${(38 - (36 * value) / most).toFixed(1)}`;
  });
  const line = `M${points.join("L")}`;
  byId("history-line").setAttribute("d", line);
  byId("history-area").setAttribute("d", `${line}L120 40L${((HISTORY - rates.length + 1) * 120) / HISTORY} 40Z`);
}

/** The names that may be removed; a list that is open stays as it is, until they change. */
function drawNames(names) {
  const list = byId("learner");
  if (names.join("\n") === [...list.options].map((each) => each.value).join("\n")) return;
  const before = list.value;
  list.replaceChildren(...names.map((name) => option(name, name)));
  if (names.includes(before)) list.value = before;
}

function drawJoin(lines, urls) {
  const join = byId("join");
  const said = [...lines, ...urls].join(" ");
  if (join.dataset.said === said) return;
  join.dataset.said = said;
  if (!lines.length) return;
  const others = urls.slice(1).join(", ");
  const code = element("span", "lines");
  code.append(...lines.flatMap((line) => [element("code", "", line), " "]));
  join.replaceChildren(
    element("span", "how", shown("Join, in a notebook:")),
    code,
    others ? element("span", "also", shown(`or at ${others}`)) : "",
  );
}

function draw(numbers) {
  const slots = numbers.slots === null ? "" : shown(`, ${numbers.slots} slots`);
  const model = numbers.preset === null ? shown("another model") : shown(`preset ${numbers.preset}`);
  setText(byId("model"), shown(`${model}${slots}, ${numbers.time_scale} model seconds a second`));
  const tiles = {
    answering: numbers.in_flight - numbers.waiting,
    waiting: numbers.waiting,
    rate: numbers.answers_per_minute,
    refused: numbers.refused,
    errors: numbers.errors,
  };
  for (const [id, value] of Object.entries(tiles)) {
    setText(byId(id), figure(value));
    byId(id).classList.toggle("zero", !value);
  }
  setText(byId("state"), numbers.paused ? shown("Paused: new requests wait at the door") : "");
  setText(byId("pause"), numbers.paused ? shown("Go on") : shown("Pause"));
  paused = numbers.paused;
  drawHistory(numbers.answers_per_minute);
  drawLanes(numbers.learners);
  drawTable(numbers);
  drawNames(numbers.learners.map((row) => row.learner));
  drawJoin(numbers.join, numbers.urls);
}

// ---------------------------------------------------------------- asking for the numbers

let paused = false;
let wrong = 0;

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/classroom/board", { signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const numbers = await answer.json();
      draw(numbers);
      if (byId("exercises").open) {
        drawExercises((await command("GET", "/classroom/settings")).exercises, numbers.learners);
      }
      wrong = 0;
    } catch {
      wrong += 1;
      if (wrong === 4) setText(byId("state"), shown("The endpoint does not answer; trying again"));
    }
  }
  setTimeout(poll, wrong ? 1000 : POLL_MS);
}

// ---------------------------------------------------------------- for the teacher

const KEPT = "classroom token"; // for this tab only, until it is closed
let planned = []; // the faults that the class began with

const ERRORS = [
  [shown("none"), []],
  [shown("one in twenty: 503, overloaded"), [{ kind: "error", status: 503, probability: 0.05 }]],
  [shown("one in five: 503, overloaded"), [{ kind: "error", status: 503, probability: 0.2 }]],
  [shown("one in ten: 429, with a wait"), [{ kind: "error", status: 429, probability: 0.1, retry_after_s: 2 }]],
  [shown("one in ten: the connection is reset"), [{ kind: "reset", probability: 0.1 }]],
  [shown("one in ten: cut off half-way"), [{ kind: "cut", probability: 0.1 }]],
];
const AS_PLANNED = "planned";

function say(text, bad = false) {
  const answer = byId("answer");
  answer.classList.toggle("bad", bad);
  answer.textContent = text;
}

async function command(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${sessionStorage.getItem(KEPT) ?? ""}` },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const said = await answer.json();
  if (answer.ok) return said;
  if (answer.status === 401) leave();
  throw new Error(said.error.message);
}

function option(value, text) {
  const made = element("option", "", text);
  made.value = value;
  return made;
}

function leave() {
  sessionStorage.removeItem(KEPT);
  byId("settings").hidden = byId("removal").hidden = byId("exercises").hidden = true;
  byId("exercises").open = false;
  byId("tried").replaceChildren();
  byId("enter").hidden = false;
}

function fill({ settings }) {
  byId("requests_per_minute").value = settings.requests_per_minute ?? "";
  byId("learner_requests_per_minute").value = settings.learner_requests_per_minute || "";
  const now = settings.faults.map((fault) => `${fault.kind} ${fault.status ?? 500} ${fault.probability}`);
  const known = ERRORS.findIndex(([, plan]) => {
    return now.join() === plan.map((f) => `${f.kind} ${f.status ?? 500} ${f.probability}`).join();
  });
  if (known < 0 && !planned.length) planned = settings.faults;
  const extra = planned.length ? [option(AS_PLANNED, shown("as planned at the start"))] : [];
  byId("faults").replaceChildren(...ERRORS.map(([text], index) => option(String(index), text)), ...extra);
  byId("faults").value = known < 0 ? AS_PLANNED : String(known);
}

function chosen() {
  const number = (id, empty) => (byId(id).value === "" ? empty : Number(byId(id).value));
  const faults = byId("faults").value;
  return {
    requests_per_minute: number("requests_per_minute", null),
    learner_requests_per_minute: number("learner_requests_per_minute", 0),
    faults: faults === AS_PLANNED ? planned : ERRORS[Number(faults)][1],
  };
}

async function tryTo(what, done) {
  try {
    const said = await what();
    say(done ?? said.message);
  } catch (error) {
    say(error.message, true);
  }
}

async function enter() {
  fill(await command("GET", "/classroom/settings"));
  byId("enter").hidden = true;
  byId("settings").hidden = byId("removal").hidden = byId("exercises").hidden = false;
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEPT, byId("token").value.trim());
  byId("token").value = "";
  tryTo(async () => {
    await enter();
    byId("pause").focus();
  }, shown("The settings are yours."));
});

byId("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  tryTo(async () => fill(await command("POST", "/classroom/settings", chosen())), shown("Applied to whatever comes from now on."));
});

byId("pause").addEventListener("click", () => {
  const next = !paused;
  tryTo(() => command("POST", "/classroom/settings", { paused: next }), next ? shown("Paused.") : shown("Going on."));
});

byId("clear").addEventListener("click", () => {
  rates.length = 0;
  tryTo(() => command("POST", "/classroom/clear"), shown("The counts are reset."));
});

byId("removal").addEventListener("submit", (event) => {
  event.preventDefault();
  tryTo(() => command("POST", "/classroom/remove", { name: byId("learner").value }));
});

byId("leave").addEventListener("click", () => {
  leave();
  say(shown("This tab has forgotten the token."));
  byId("token").focus();
});

// ---------------------------------------------------------------- looks

function wear(theme) {
  document.documentElement.dataset.theme = theme;
  setText(byId("theme"), theme === "light" ? shown("Dark") : shown("Light"));
}

byId("theme").addEventListener("click", () => {
  wear(document.documentElement.dataset.theme === "light" ? "dark" : "light");
});

wear(matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
if (sessionStorage.getItem(KEPT)) enter().catch(leave);
poll();
