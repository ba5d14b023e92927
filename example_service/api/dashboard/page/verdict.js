// The summary in one sentence, the rail of switches, and the circuits that refuse calls.

import {all, byName, bySeverity, known, lastMinutes, rateOf} from "./circuits.js";
import {badge, breakable, byId, element, glyph, hide, say} from "./dom.js";
import {since, waitOf} from "./row.js";
import {BY_HAND, classOf, count, listed, lower, perSecond, REFUSING, moment} from "./words.js";

// As many lines as this are always there, so that nothing moves when a circuit opens or closes.
const MAX_LINES = 3;
const MAX_NAMED = 14;
const MAX_SWITCHES = 40;

const inStatus = (...statuses) => all().filter(({status}) => statuses.includes(status));
const names = (...statuses) => inStatus(...statuses).sort(bySeverity).map(({name}) => name);

function named(list, what) {
  if (list.length > 2) return `${list.length} of ${known.circuits.size} circuits are ${what}`;
  return `${listed(list)} ${list.length === 1 ? "is" : "are"} ${what}`;
}

export function headline() {
  const {size} = known.circuits;
  for (const [status, what] of [["open", "open"], ["half_open", "recovering"], ["forced_open", "forced open"]]) {
    const list = names(status);
    if (list.length) return named(list, what);
  }
  if (!size) return "No circuit yet";
  const ignored = names("disabled", "shadow");
  if (ignored.length) return `No circuit refuses calls`;
  return size === 1 ? "The one circuit is closed" : `All ${size} circuits are closed`;
}

const some = (list) => (list.length > 5 ? `${listed([...list.slice(0, 4), `${list.length - 4} more`])}` : listed(list));

function subline() {
  const parts = [];
  const half = names("half_open");
  const byHand = names(...BY_HAND);
  if (known.silentWorkers.length) parts.push(`Worker ${listed(known.silentWorkers.map(String))} did not respond; its calls are missing here.`);
  if (half.length && names("open").length) parts.push(`Half-open: ${some(half)}.`);
  if (byHand.length) parts.push(`Set by hand: ${some(byHand)}.`);
  if (known.circuits.size && !inStatus(...REFUSING).length) {
    const [last] = over();
    if (!byHand.length) parts.push(last ? `The last to refuse calls was ${last.name}, until ${moment(last.past.until, known.at)}.` : "Nothing has opened since the start.");
  }
  return parts.join(" ");
}

export function showVerdict() {
  const node = byId("verdict");
  const cases = inStatus(...REFUSING).sort(bySeverity);
  node.classList.toggle("alarming", names("open").length > 0);
  say(node.querySelector("h1"), headline());
  say(node.querySelector(".sub"), subline());
  showSums(node.querySelector(".sums"), cases);
  showRail(node.querySelector(".rail"));
  showLines(node.querySelector(".cases"), cases);
}

function showSums(list, cases) {
  const sum = (circuits, figure) => circuits.reduce((total, circuit) => total + figure(circuit), 0);
  const began = Math.min(...cases.map(({since: at}) => at));
  const sums = cases.length
    ? [[`calls spared since ${moment(began, known.at)}`, count(sum(cases, ({spared}) => spared))], ["spared per second", perSecond(sum(cases, (circuit) => rateOf(circuit, "refused")))]]
    : [["calls per second", perSecond(sum(all(), (circuit) => rateOf(circuit, "ok", "failed", "refused")))], ["refused in five minutes", count(sum(all(), (circuit) => lastMinutes(circuit, "refused")))]];
  if (list.children.length !== sums.length) list.replaceChildren(...sums.map(() => element("div", "", element("dt"), element("dd"))));
  sums.forEach(([label, value], at) => {
    say(list.children[at].firstChild, label);
    say(list.children[at].lastChild, value);
  });
}

function showRail(rail) {
  const circuits = all().sort(byName);
  const isCrowded = circuits.length > MAX_SWITCHES;
  const shown = isCrowded ? circuits.filter(({status}) => status !== "closed").slice(0, MAX_SWITCHES) : circuits;
  const closed = isCrowded ? circuits.filter(({status}) => status === "closed").length : 0;
  const key = `${shown.map(({name, status}) => name + status).join()} ${closed}`;
  if (rail.dataset.key === key) return;
  rail.dataset.key = key;
  const focused = document.activeElement?.closest(".rail a")?.hash;
  rail.classList.toggle("many", shown.length > MAX_NAMED);
  hide(rail, circuits.length === 0);
  rail.replaceChildren(...shown.map(({name, status}) => {
    const link = element("a", `${classOf(status)} ${status === "closed" ? "" : "not-closed"}`, glyph(status), element("span", "", name));
    link.href = `#circuit-${encodeURIComponent(name)}`;
    link.title = `${name}: ${lower(status)}`;
    link.setAttribute("aria-label", link.title);
    return element("li", "", link);
  }));
  if (closed) rail.append(element("li", "rest", element("span", "closed", glyph("closed"), element("b", "", `${count(closed)} closed`))));
  if (focused) [...rail.querySelectorAll("a")].find(({hash}) => hash === focused)?.focus({preventScroll: true});
}

// The circuits that refused calls and no longer do, the latest first.
const over = () => all().filter(({status, past}) => past && !REFUSING.includes(status)).sort((a, b) => b.past.until - a.past.until);

// Elements are only replaced when a state changes, so that a focused link keeps the focus.
function showLines(list, cases) {
  const lines = Math.min(MAX_LINES, known.circuits.size);
  const isCrowded = cases.length > lines;
  const shown = isCrowded ? cases.slice(0, lines - 1) : [...cases, ...over()].slice(0, lines);
  const key = `${lines} ${cases.length} ${shown.map(({name, status}) => name + status).join()}`;
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...shown.map(({name, status}) => {
      const link = element("a", "", ...breakable(name));
      link.href = `#circuit-${encodeURIComponent(name)}`;
      link.title = name;
      return element("li", "", badge(status), link, element("span", "since"), element("span", "why"), element("span", "spared"));
    }));
    if (isCrowded) list.append(element("li", "", element("span"), element("span", "rest", `and ${count(cases.length - shown.length)} more below`)));
    if (lines && !shown.length) list.append(element("li", "", element("span", "rest none", "An outage would be listed here, with its reason and the calls that it spares.")));
    while (list.children.length < lines) list.append(blank());
  }
  shown.forEach((circuit, at) => {
    const [, , began, why, spared] = list.children[at].children;
    const isOver = !REFUSING.includes(circuit.status);
    const reason = isOver ? circuit.past.reason : circuit.mode?.reason ?? circuit.reason;
    say(began, isOver ? `from ${moment(circuit.past.since, known.at)} to ${moment(circuit.past.until, known.at)}` : since(circuit));
    say(why, [waitOf(circuit), reason].filter(Boolean).join("; "));
    say(spared, `${count(isOver ? circuit.past.spared : circuit.spared)} spared`);
    why.title = reason ?? "";
  });
}

function blank() {
  const made = element("li", "blank");
  made.setAttribute("aria-hidden", "true");
  return made;
}
