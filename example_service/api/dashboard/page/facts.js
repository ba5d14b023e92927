// The facts beside the strip of one circuit: what has to happen before it opens or closes, and the progress.

import {failureRate, lastMinutes, now} from "./circuits.js";
import {drawn, element} from "./dom.js";
import {count, percent, span} from "./words.js";

const MAX_PIPS = 8;

export function meter(value, mark, className = "") {
  const bar = drawn("svg", {class: "meter", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true"},
    drawn("rect", {class: "track", y: 1, width: 100, height: 6}));
  const isOver = mark !== null && value >= mark;
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
  const {look, waits, mode} = circuit;
  const made = [];
  if (!circuit.hasBreaker) return made;
  if (look === "open" && circuit.until) made.push(countdown(circuit));
  if (circuit.verdict === "fleet") made.push(fact("Opened for all by", circuit.openedBy));
  if (look === "half_open" && circuit.probesAtOnce) {
    // Calls that started before the circuit opened may still be in flight.
    made.push(fact("Probes in use", outOf(Math.min(circuit.inFlight, circuit.probesAtOnce), circuit.probesAtOnce)),
      fact("Successes needed", outOf(circuit.probesSucceeded, circuit.successesNeeded, "square")));
  }
  if (look === "half_open" && waits.length) made.push(fact("Waits so far", `${waits.join(", ")}\u00a0s`));
  if (look === "shadow") made.push(fact("Would have refused", count(mode.letThrough)));
  if (look === "disabled") made.push(fact("Failures let through in five minutes", count(lastMinutes(circuit, "failed"))));
  made.push(rateFact(circuit));
  if (["half_open", "forced_open"].includes(look) || !circuit.failureThreshold) return made;
  made.push(fact("Failures in a row", outOf(Math.min(circuit.failuresInARow, circuit.failureThreshold), circuit.failureThreshold, "open")));
  return made;
}

function countdown({until, waits}) {
  const left = Math.max(0, until - now());
  const wait = Math.max(waits.at(-1) ?? left, left, 1);
  const note = waits.length > 1 ? `of ${wait}\u00a0s; waits so far: ${waits.join(", ")}\u00a0s` : `of ${Math.round(wait)}\u00a0s, the first wait`;
  return fact("Probes admitted in", element("span", "big", span(left)), meter(left / wait, null, "wait"), note);
}

function rateFact(circuit) {
  const rate = failureRate(circuit);
  const mark = circuit.rateThreshold ?? null;
  const note = mark === null ? `opens at ${count(circuit.failureThreshold ?? 0)} failures in a row` : `opens at ${percent(mark)} of ${count(circuit.minimumCalls)} calls or more`;
  const label = circuit.window?.calls ? `Failure rate, window of ${count(circuit.window.calls)} calls` : "Failure rate, last minute";
  return fact(label, rate === null ? "no calls" : percent(rate), meter(rate ?? 0, mark), note);
}
