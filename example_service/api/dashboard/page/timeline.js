// The latest transitions and orders, with one entry for each outage. Its failed attempts to recover are folded.

import {known} from "./circuits.js";
import {breakable, byId, element, glyph, say} from "./dom.js";
import {classOf, clock, day, lower, moment, span, zone} from "./words.js";

const MAX_ENTRIES = 12;
const unfolded = new Set();

// Entries are sorted newest first, the steps of an entry oldest first. An order is an entry of its own.
function entriesOf(timeline) {
  const made = [];
  const running = new Map();
  for (const event of [...timeline].reverse()) {
    if (event.order) {
      made.push([event]);
      for (const [place, [first]] of running) if (first.name === event.name) running.delete(place);
      continue;
    }
    const place = `${event.name} ${event.worker}`;
    if (event.from === "closed" || !running.has(place)) {
      running.set(place, []);
      made.push(running.get(place));
    }
    running.get(place).push(event);
    if (event.to === "closed") running.delete(place);
  }
  return made.sort((a, b) => b.at(-1).at - a.at(-1).at).slice(0, MAX_ENTRIES);
}

const SET = {forced_open: "forced open by hand", disabled: "disabled by hand", shadow: "set to shadow mode by hand"};
const ENDED = {forced_open: "no longer forced open", disabled: "no longer disabled", shadow: "no longer in shadow mode"};
const ORDERS = {set: ({mode}) => SET[mode], ended: ({mode}) => ENDED[mode], reset: () => "closed"};

function step(event) {
  return event.order ? orderStep(event) : transitionStep(event);
}

function orderStep(event) {
  const {at, name, order, reason, until} = event;
  const status = order === "set" ? event.mode : order === "ended" && event.mode === "forced_open" ? "half_open" : "closed";
  const end = order !== "set" ? "" : until ? `; until ${moment(until, at)}` : "; until a reset";
  return drawnStep(at, status, element("strong", "", ...breakable(name)), " ", element("span", `to ${classOf(status)}`, ORDERS[order](event)),
    element("span", "why", reason.replace(/\.$/, ""), end));
}

function drawnStep(at, status, ...content) {
  const time = element("time", "", clock(at));
  time.dateTime = new Date(1000 * at).toISOString();
  return element("div", "step", time, glyph(status), element("p", "", ...content));
}

function transitionStep({at, name, from, to, reason, wait, worker}) {
  const where = known.workers.length + known.silentWorkers.length > 1 ? ` in worker ${worker}` : "";
  return drawnStep(at, to, element("strong", "", ...breakable(name)), ` ${lower(from)} → `, element("span", `to ${classOf(to)}`, lower(to)), where,
    element("span", "why", reason, wait ? `; waits ${span(wait)}` : ""));
}

function between(steps) {
  const key = `${steps[0].name} ${steps[0].at}`;
  const tries = steps.filter(({from, to, causedBy}) => from === "half_open" && to === "open" && causedBy !== "operator").length;
  const summary = element("summary", "", tries ? `${tries} failed ${tries === 1 ? "recovery" : "recoveries"} in between` : `${steps.length} in between`);
  const made = element("details", "", summary, ...[...steps].reverse().map(step));
  made.open = unfolded.has(key);
  made.addEventListener("toggle", () => (made.open ? unfolded.add(key) : unfolded.delete(key)));
  return made;
}

function entry(steps) {
  const middle = steps.slice(1, -1);
  const made = element("li", "", step(steps.at(-1)));
  if (middle.length > 1) made.append(between(middle));
  else made.append(...middle.map(step));
  if (steps.length > 1) made.append(step(steps[0]));
  return made;
}

export function showTimeline() {
  const list = byId("timeline");
  const several = known.workers.length + known.silentWorkers.length > 1;
  const key = `${known.timeline.map(({at, name, order}) => `${at}${name}${order}`).join()} ${several}`;
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  say(byId("zone"), zone());
  const entries = [];
  let today = day(known.at);
  for (const steps of entriesOf(known.timeline)) {
    const its = day(steps.at(-1).at);
    if (its !== today) entries.push(element("li", "day", its));
    today = its;
    entries.push(entry(steps));
  }
  list.replaceChildren(...(entries.length ? entries : [element("li", "nothing", "None so far.")]));
}
