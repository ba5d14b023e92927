// The facts beside the strip of one circuit: what has to happen before it opens or closes, and the progress.

import {lastMinutes, now, recentFailureRate, ruleWindow} from "./circuits.js";
import {drawn, element} from "./dom.js";
import {count, lower, percent, span} from "./words.js";

const MAX_PIPS = 8;

export function meter(value, mark, isOver, className = "") {
  const bar = drawn("svg", {class: "meter", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true"},
    drawn("rect", {class: "track", y: 1, width: 100, height: 6}));
  if (mark !== null) bar.append(drawn("rect", {class: "beyond", x: 100 * mark, y: 1, width: 100 - 100 * mark, height: 6}));
  bar.append(drawn("rect", {class: `value ${className} ${isOver ? "over" : ""}`, y: 1, width: 100 * Math.min(1, value), height: 6}));
  if (mark !== null) bar.append(drawn("rect", {class: "mark-at", x: 100 * mark - .6, y: -1, width: 1.2, height: 10}));
  return bar;
}

function pips(taken, all, className = "") {
  if (all > MAX_PIPS) return "";
  return element("span", `pips ${className}`, ...Array.from({length: all}, (_, at) => element("i", at < taken ? "taken" : "")));
}

function fact(label, value, bar = null, note = "") {
  const made = element("div", "fact", element("dt", "", label), element("dd", "", ...[value].flat()));
  if (bar) made.append(element("dd", "wide", bar, element("span", "note", note)));
  return made;
}

const outOf = (taken, all, className) => [pips(Math.min(taken, all), all, className), `${count(taken)} of ${count(all)}`];

export function facts(circuit) {
  const {status, waits, mode} = circuit;
  const made = [];
  if (!circuit.hasBreaker) return made;
  if (status === "open" && circuit.until) made.push(countdown(circuit));
  if (circuit.verdict === "fleet") made.push(fact("Opened for all by", circuit.openedBy));
  if (status === "half_open" && circuit.probesAtOnce) {
    // Calls that started before the circuit opened may still be in flight.
    made.push(fact("Probes in use", outOf(Math.min(circuit.inFlight, circuit.probesAtOnce), circuit.probesAtOnce)),
      fact("Successes needed", outOf(circuit.probesSucceeded, circuit.successesNeeded, "square")));
  }
  if (status === "half_open" && waits.length) made.push(fact("Waits so far", `${waits.join(", ")}\u00a0s`));
  if (status === "shadow") made.push(fact("By its rules it is", lower(circuit.state)), fact("Would have refused", count(mode.letThrough)));
  if (status === "disabled") made.push(fact("Failures let through in five minutes", count(lastMinutes(circuit, "failed"))));
  made.push(...rateFacts(circuit));
  if (["half_open", "forced_open"].includes(status) || !circuit.failureThreshold) return made;
  made.push(fact("Failures in a row", outOf(Math.min(circuit.failuresInARow, circuit.failureThreshold), circuit.failureThreshold, "open")));
  return made;
}

function countdown({until, waits}) {
  const left = Math.max(0, until - now());
  const wait = Math.max(waits.at(-1) ?? left, left, 1);
  const note = waits.length > 1 ? `of ${wait}\u00a0s; waits so far: ${waits.join(", ")}\u00a0s` : `of ${Math.round(wait)}\u00a0s, the first wait`;
  return fact("Probes admitted in", element("span", "big", span(left)), meter(left / wait, null, false, "wait"), note);
}

// The rate that the circuit's rule evaluates, with the threshold as a mark, and otherwise that of the last minute.
export function shownRate(circuit) {
  const {rateThreshold: mark, minimumCalls} = circuit;
  const window = mark ? ruleWindow(circuit) : null;
  if (!window) {
    const rate = recentFailureRate(circuit);
    return {rate, mark: null, isOver: Boolean(mark) && rate >= mark};
  }
  return {rate: window.calls ? window.rate : null, mark, isOver: window.calls >= minimumCalls && window.rate >= mark};
}

function rateFacts(circuit) {
  const {rate, mark, isOver} = shownRate(circuit);
  const shown = (share) => (share === null ? "no calls" : percent(share));
  if (mark === null) return [fact("Failure rate, last minute", shown(rate), meter(rate ?? 0, null, isOver), whatOpens(circuit))];
  const {calls} = ruleWindow(circuit);
  const label = calls ? `Failure rate, last ${calls === 1 ? "call" : `${count(calls)} calls`}` : "Failure rate in the window";
  return [fact(label, shown(rate), meter(rate ?? 0, mark, isOver), whatOpens(circuit)),
    fact("In the last minute", shown(recentFailureRate(circuit)))];
}

function whatOpens({status, state, rateThreshold, minimumCalls, failureThreshold}) {
  if (status === "disabled") return "never opens while it is disabled";
  if (status === "forced_open") return "";
  const rate = rateThreshold ? `at ${percent(rateThreshold)} of ${count(minimumCalls)} calls or more` : "";
  const row = failureThreshold ? `at ${count(failureThreshold)} failures in a row` : "";
  if (state !== "closed") return rate && "the rule counts again once it is closed";
  return rate || row ? `opens ${rate || row}` : "";
}
