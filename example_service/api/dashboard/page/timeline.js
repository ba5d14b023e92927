// The latest transitions, with one entry for each outage. Its failed attempts to recover are folded.

import {known} from "./circuits.js";
import {breakable, byId, element, glyph, say} from "./dom.js";
import {classOf, clock, day, lower, span, zone} from "./words.js";

const MOST_ENTRIES = 12;
const unfolded = new Set();

// Outages are sorted newest first, the transitions of an outage oldest first.
function outages(transitions) {
  const made = [];
  const running = new Map();
  for (const one of [...transitions].reverse()) {
    const place = `${one.name} ${one.worker}`;
    if (one.from === "closed" || !running.has(place)) {
      running.set(place, []);
      made.push(running.get(place));
    }
    running.get(place).push(one);
    if (one.to === "closed") running.delete(place);
  }
  return made.sort((a, b) => b.at(-1).at - a.at(-1).at).slice(0, MOST_ENTRIES);
}

function step({at, name, from, to, reason, wait, worker}) {
  const time = element("time", "", clock(at));
  time.dateTime = new Date(1000 * at).toISOString();
  const where = known.workers.length + known.silentWorkers.length > 1 ? ` in worker ${worker}` : "";
  return element("div", "step", time, glyph(to), element("p", "",
    element("strong", "", ...breakable(name)), ` ${lower(from)} → `, element("span", `to ${classOf(to)}`, lower(to)), where,
    element("span", "why", reason, wait ? `; waits ${span(wait)}` : "")));
}

function between(steps) {
  const key = `${steps[0].name} ${steps[0].at}`;
  const tries = steps.filter(({from, to, reason}) =>
    from === "half_open" && to === "open" && !reason?.startsWith("forced open by hand")).length;
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
  const key = `${known.transitions.map(({at, name}) => `${at}${name}`).join()} ${several}`;
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  say(byId("zone"), zone());
  const entries = [];
  let today = day(known.at);
  for (const steps of outages(known.transitions)) {
    const its = day(steps.at(-1).at);
    if (its !== today) entries.push(element("li", "day", its));
    today = its;
    entries.push(entry(steps));
  }
  list.replaceChildren(...(entries.length ? entries : [element("li", "nothing", "None so far.")]));
}
