// The data of the page: the merged messages of the stream, and the figures computed from them.

import {BY_HAND, SEVERITY} from "./words.js";

export const WINDOW = 300;
export const BUCKET = 5;
const RECENT = 60;
const ORDER_SECONDS = 2;

export const known = {service: null, workers: [], silentWorkers: [], leftOut: 0, timeline: [], circuits: new Map(), at: null};
let receivedAt = 0;
let isFrozen = false;

// The current time on the service's clock, in seconds since the epoch. It stops while the stream is interrupted.
export function now() {
  return isFrozen ? known.at : known.at + (performance.now() - receivedAt) / 1000;
}

export const freeze = () => { isFrozen = true };

// Merges a message into `known`, and returns the names of the circuits that it changed.
export function take(message) {
  const {circuits, names, timeline, ...head} = message;
  if (message.service) known.circuits.clear();
  Object.assign(known, head);
  receivedAt = performance.now();
  isFrozen = false;
  for (const circuit of circuits) {
    circuit.calls = merged(known.circuits.get(circuit.name)?.calls ?? [], circuit.calls);
    known.circuits.set(circuit.name, circuit);
  }
  for (const name of names ? [...known.circuits.keys()] : []) {
    if (!names.includes(name)) known.circuits.delete(name);
  }
  if (timeline) known.timeline = joined(known.timeline, timeline);
  return circuits.map(({name}) => name);
}

// The service keeps only the most recent entries, so the page keeps those that it has received.
function joined(old, timeline) {
  const kept = old.filter((event) => !timeline.some((other) => isSame(event, other)));
  return [...timeline, ...kept].sort((a, b) => b.at - a.at).slice(0, 100);
}

// The time of an order is that of the first worker to obey, whose report may be the last to arrive.
function isSame(a, b) {
  return a.name === b.name && a.worker === b.worker && a.order === b.order && a.mode === b.mode
    && Math.abs(a.at - b.at) <= (a.order ? ORDER_SECONDS : 0);
}

function merged(old, calls) {
  const first = calls[0]?.[0] ?? Infinity;
  return [...old.filter(([start]) => start < first && start > known.at - WINDOW - BUCKET), ...calls];
}

const collator = new Intl.Collator("en");
export const byName = (a, b) => collator.compare(a.name, b.name);

export const all = () => [...known.circuits.values()];

// An outage is one state here, although its circuit is half-open now and then: circuits must not change places
// with every probe. Within a state, the circuit that has been in it longest comes first, because it is more likely
// to be the cause. Of the closed circuits, those that have refused calls come first, the latest at the top.
export function bySeverity(a, b) {
  const rank = ({status}) => SEVERITY.indexOf(status === "half_open" ? "open" : status);
  return rank(a) - rank(b)
    || (a.status === "closed" ? (b.past?.until ?? 0) - (a.past?.until ?? 0) : a.since - b.since) || byName(a, b);
}

export const isByHand = ({status}) => BY_HAND.includes(status);

const KINDS = {ok: 1, failed: 2, refused: 3};

export function callsIn({calls}, from, ...kinds) {
  let sum = 0;
  for (let at = calls.length - 1; at >= 0 && calls[at][0] >= from; at -= 1) {
    for (const kind of kinds) sum += calls[at][KINDS[kind]];
  }
  return sum;
}

// The seconds of calls that a bucket has. The current bucket is not complete yet, and begins with a report in which
// some calls are older than it, by half a second on average.
const secondsSince = (start) => Math.max(1, known.at - start + .5);
export const secondsOf = (start) => Math.min(BUCKET, secondsSince(start));

// Calls per second in the current bucket and the one before it.
export function rateOf(circuit, ...kinds) {
  const from = BUCKET * Math.floor(now() / BUCKET) - BUCKET;
  return callsIn(circuit, from, ...kinds) / secondsSince(from);
}

// The window of the circuit's rule on its failure rate, which counts only while the circuit is closed. Null if
// there is none now.
export function ruleWindow({state, status, window}) {
  return state === "closed" && status !== "disabled" ? window ?? null : null;
}

// The share of failures in the calls of the last minute. Null if there were no calls.
export function recentFailureRate(circuit) {
  const failed = callsIn(circuit, now() - RECENT, "failed");
  const ended = failed + callsIn(circuit, now() - RECENT, "ok");
  return ended ? failed / ended : null;
}

export const lastMinutes = (circuit, ...kinds) => callsIn(circuit, now() - WINDOW, ...kinds);

// The states and modes of the circuit in the last five minutes, with the start and end of each.
export function periods(circuit) {
  const first = now() - WINDOW;
  return circuit.periods.map(([start, status], at) => ({status, start, end: circuit.periods[at + 1]?.[0] ?? now()}))
    .filter(({end}) => end > first).map((period) => ({...period, start: Math.max(first, period.start)}));
}
