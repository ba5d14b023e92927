// The list of circuits, with search and filter.

import {all, bySeverity, isByHand, known} from "./circuits.js";
import {byId, choice, element, hide, say, swatch} from "./dom.js";
import {Row} from "./row.js";

const FILTERS = {
  All: () => true,
  "Not closed": ({status}) => status !== "closed",
  "By hand": isByHand,
  Closed: ({status}) => status === "closed",
};
const UNFOLDED_AT_FIRST = matchMedia("(max-width: 760px)").matches ? 2 : 5;

// The rows are places: the first shows the first circuit, and is unfolded. So nothing moves when another circuit
// becomes the first, but what is written in the places changes.
const rows = [];
const unfolded = new Map();
const statuses = new Map();
const counts = {};
let filter = "All";
let makeActions = () => [];

// Rows outside the viewport are not redrawn.
const sight = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    const row = rows.find(({node}) => node === target);
    if (!row) continue;
    row.isSeen = isIntersecting;
    if (isIntersecting) row.show();
  }
}, {rootMargin: "300px"});

export function prepareList(actions) {
  makeActions = actions;
  byId("filter").append(...Object.keys(FILTERS).map((word) => {
    counts[word] = element("b", "", "0");
    return choice("filter", word === filter, [word, counts[word]], () => { filter = word; arrange() });
  }));
  byId("legend").append(...[["Succeeded", "ok"], ["Failed", "failed"], ["Refused", "refused"]].map(
    ([word, kind]) => element("li", "", swatch(kind), word)));
  byId("search").addEventListener("input", () => arrange());
  byId("search").form.addEventListener("submit", (event) => event.preventDefault());
}

export function showList() {
  if (!rows.length) {
    const wanted = all().sort(bySeverity).slice(0, UNFOLDED_AT_FIRST).filter(({status}) => status !== "closed");
    for (const {name} of wanted) unfolded.set(name, true);
  }
  while (rows.length < known.circuits.size) addRow();
  while (rows.length > known.circuits.size) rows.pop().node.remove();
  arrange();
  statuses.clear();
  for (const {name, status} of all()) statuses.set(name, status);
}

function addRow() {
  const row = new Row(makeActions, (name, isUnfolded) => { unfolded.set(name, isUnfolded); arrange() });
  rows.push(row);
  byId("list").append(row.node);
  sight.observe(row.node);
}

function arrange() {
  const wanted = byId("search").value.trim().toLowerCase();
  const isShown = (circuit) => FILTERS[filter](circuit) && circuit.name.toLowerCase().includes(wanted);
  const circuits = all().sort(bySeverity);
  const shown = circuits.filter(isShown);
  const focused = byId("list").contains(document.activeElement) ? document.activeElement : null;
  const label = focused?.getAttribute("aria-label");
  [...shown, ...circuits.filter((circuit) => !isShown(circuit))].forEach((circuit, at) => {
    const row = rows[at];
    if (!row) return;
    row.bind(circuit, unfolded.get(circuit.name) ?? at === 0, statuses.has(circuit.name) && statuses.get(circuit.name) !== circuit.status);
    hide(row.node, at >= shown.length);
    if (row.isSeen) row.show();
  });
  // The focus stays with its circuit, which may be in another place now.
  if (label && focused.getAttribute("aria-label") !== label) {
    [...byId("list").querySelectorAll("[aria-label]")].find((node) => node.getAttribute("aria-label") === label)?.focus({preventScroll: true});
  }
  for (const [word, accepts] of Object.entries(FILTERS)) say(counts[word], String(circuits.filter(accepts).length));
  hide(byId("nothing"), shown.length > 0 && !known.leftOut);
  say(byId("nothing"), shown.length ? `${known.leftOut} closed circuits are not shown.`
    : !rows.length ? "No circuit yet. A circuit appears here with its first breaker."
      : wanted ? `No circuit here has “${wanted}” in its name.` : "No circuit is in this state.");
}

const rowOf = (name) => rows.find(({circuit, node}) => circuit.name === name && !node.hidden);

export function unfold(name) {
  if (!known.circuits.has(name)) return;
  unfolded.set(name, true);
  if (!rowOf(name)) {
    byId("search").value = "";
    filter = "All";
    byId("filter").querySelector("input").checked = true;
  }
  arrange();
  const row = rowOf(name);
  row.show();
  row.node.scrollIntoView({block: "nearest"});
  row.fold.focus({preventScroll: true});
}

export function showActions() {
  for (const row of rows) {
    row.setActions();
    if (row.more) row.show();
  }
}
