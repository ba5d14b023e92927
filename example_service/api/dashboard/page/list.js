// The list of circuits, with search and filter.

import {all, bySeverity, isByHand, known} from "./circuits.js";
import {byId, choice, element, hide, say, swatch} from "./dom.js";
import {Row} from "./row.js";

const FILTERS = {
  All: () => true,
  "Not closed": ({look}) => look !== "closed",
  "By hand": isByHand,
  Closed: ({look}) => look === "closed",
};
const UNFOLDED_AT_FIRST = matchMedia("(max-width: 760px)").matches ? 2 : 5;

const rows = new Map();
const counts = {};
let filter = "All";
let makeActions = () => [];

// Rows outside the viewport are not redrawn.
const sight = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    const row = rows.get(target.id.slice("circuit-".length));
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
  const isFirst = rows.size === 0;
  all().sort(bySeverity).forEach((circuit, at) => {
    let row = rows.get(circuit.name);
    if (!row) {
      row = new Row(circuit, isFirst && circuit.look !== "closed" && at < UNFOLDED_AT_FIRST, makeActions);
      rows.set(circuit.name, row);
      byId("list").append(row.node);
      row.show();
      sight.observe(row.node);
    }
    row.circuit = circuit;
  });
  for (const [name, row] of rows) {
    if (known.circuits.has(name)) continue;
    row.node.remove();
    rows.delete(name);
  }
  arrange();
  for (const row of rows.values()) if (row.isSeen || row.look !== row.circuit.look) row.show();
}

function arrange() {
  const list = byId("list");
  const wanted = byId("search").value.trim().toLowerCase();
  const focused = document.activeElement;
  let shown = 0;
  all().sort(bySeverity).forEach((circuit, at) => {
    const {node} = rows.get(circuit.name);
    if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null);
    const isShown = FILTERS[filter](circuit) && circuit.name.toLowerCase().includes(wanted);
    hide(node, !isShown);
    shown += isShown;
  });
  // A row that is moved loses the focus.
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({preventScroll: true});
  for (const [word, accepts] of Object.entries(FILTERS)) say(counts[word], String(all().filter(accepts).length));
  hide(byId("nothing"), shown > 0 && !known.leftOut);
  say(byId("nothing"), shown ? `${known.leftOut} closed circuits are not shown.`
    : !rows.size ? "No circuit yet. A circuit appears here with its first breaker."
      : wanted ? `No circuit here has “${wanted}” in its name.` : "No circuit is in this state.");
}

export function unfold(name) {
  const row = rows.get(name);
  if (!row) return;
  row.isUnfolded = true;
  hide(row.node, false);
  row.show();
  row.node.scrollIntoView({block: "nearest"});
  row.fold.focus({preventScroll: true});
}

export function showActions() {
  for (const row of rows.values()) {
    row.setActions();
    if (row.more) row.show();
  }
}
