// A place in the list: a line of figures that can be unfolded. It shows one circuit at a time.

import {BUCKET, lastMinutes, now, periods, rateOf, secondsOf, WINDOW} from "./circuits.js";
import {badge, breakable, drawn, element, hide, say} from "./dom.js";
import {facts, meter, shownRate} from "./facts.js";
import {drawStrip} from "./strip.js";
import {classOf, clock, count, listed, lower, moment, percent, perSecond, REFUSING, span, unsigned} from "./words.js";

const FIGURES = ["Calls/s", "Failure rate", "Refused in 5\u00a0min", "In flight"];
const [, , REFUSED] = FIGURES;

export const since = ({since: began}) => `since ${moment(began, now())}, for ${span(now() - began)}`;

export const waitOf = ({status, until}) => (status === "open" && until ? `probes admitted in ${span(until - now())}` : "");

export function history(circuit) {
  return `Last five minutes: ${listed(periods(circuit).map(({status, start, end}) => `${lower(status)} for ${span(end - start)}`))}`;
}

export class Row {
  // `fold` is called with the name of the circuit when the reader folds or unfolds it.
  constructor(makeActions, fold) {
    this.circuit = null;
    this.isUnfolded = false;
    this.isSeen = true;
    this.status = null;
    this.cursor = null;
    this.makeActions = makeActions;
    this.badge = element("span");
    this.title = element("h3");
    this.brief = element("span", "brief");
    this.since = element("p", "since");
    this.mini = drawn("svg", {class: "strip", role: "img", viewBox: `0 0 ${WINDOW} 28`, preserveAspectRatio: "none"});
    this.figures = Object.fromEntries(FIGURES.map((label) => [label, element("dd")]));
    this.fold = element("button", "fold", drawn("svg", {viewBox: "0 0 12 12", "aria-hidden": "true"}, drawn("path", {d: "m4 2 4 4-4 4"})));
    this.fold.addEventListener("click", () => fold(this.circuit.name, !this.isUnfolded));
    const top = element("div", "top", this.fold, this.badge, element("div", "name", this.title, this.brief),
      this.since, this.mini, element("dl", "figures", ...FIGURES.map((label) => element("div", "", element("dt", "", label), this.figures[label]))));
    this.node = element("article", "circuit", top);
    this.node.addEventListener("animationend", () => this.node.classList.remove("changed"));
  }

  // Places keep their elements and show other circuits, because moved elements would make the page jump.
  bind(circuit, isUnfolded, isChanged) {
    const isOther = this.circuit?.name !== circuit.name;
    this.circuit = circuit;
    this.isUnfolded = isUnfolded;
    if (isOther) this.rename(circuit.name);
    if (this.status !== circuit.status) this.changeStatus(circuit.status);
    if (isChanged) this.node.classList.add("changed");
    else if (isOther) this.node.classList.remove("changed");
  }

  rename(name) {
    this.cursor = null;
    this.node.id = `circuit-${name}`;
    this.title.replaceChildren(...breakable(name));
    this.fold.setAttribute("aria-label", `Details of ${name}`);
    if (!this.more) return;
    this.large.setAttribute("aria-label", `Calls of ${name} in the last five minutes`);
    this.setActions();
  }

  // Creates the details on first use only, because there may be hundreds of circuits.
  unfold() {
    this.why = element("p", "why");
    this.tag = element("div", "tag", element("p"), element("p", "who"));
    this.actions = element("div", "actions");
    this.readout = element("p", "readout");
    this.facts = element("dl", "facts");
    this.large = drawn("svg", {class: "strip", role: "slider", tabindex: 0, "aria-valuemin": -WINDOW, "aria-valuemax": 0});
    this.more = element("div", "more", element("div", "story", this.why, this.tag, this.actions),
      element("div", "chart", this.readout, this.large), this.facts);
    this.node.append(this.more);
    this.rename(this.circuit.name);
    this.large.addEventListener("pointermove", ({offsetX}) => this.point(now() - WINDOW + (offsetX * WINDOW) / this.large.clientWidth));
    this.large.addEventListener("pointerleave", () => this.point(null));
    this.large.addEventListener("blur", () => this.point(null));
    this.large.addEventListener("keydown", (event) => {
      const by = {ArrowLeft: -BUCKET, ArrowRight: BUCKET}[event.key];
      if (!by) return;
      event.preventDefault();
      this.point((this.cursor ?? now()) + by);
    });
  }

  point(second) {
    this.cursor = second === null ? null : BUCKET * Math.floor(Math.min(now(), Math.max(now() - WINDOW + BUCKET, second)) / BUCKET);
    this.showMore();
  }

  show() {
    const {circuit} = this;
    const {status} = circuit;
    this.fold.setAttribute("aria-expanded", this.isUnfolded);
    if (this.isUnfolded && !this.more) this.unfold();
    if (this.more) hide(this.more, !this.isUnfolded);
    this.mini.toggleAttribute("hidden", this.isUnfolded);
    hide(this.since, !this.isUnfolded);
    say(this.since, status === "closed" ? "" : since(circuit));
    say(this.brief, this.isUnfolded ? "" : brief(circuit));
    this.showFigures();
    if (this.isUnfolded) return this.showMore();
    this.mini.setAttribute("aria-label", history(circuit));
    drawStrip(this.mini, circuit, false);
  }

  changeStatus(status) {
    const fresh = badge(status);
    this.badge.replaceWith(fresh);
    this.badge = fresh;
    this.node.className = `circuit ${classOf(status)}`;
    this.status = status;
  }

  showFigures() {
    const {circuit, figures} = this;
    const refused = lastMinutes(circuit, "refused");
    const {rate, mark, isOver} = shownRate(circuit);
    say(figures["Calls/s"], perSecond(rateOf(circuit, "ok", "failed", "refused")));
    const shown = `${rate} ${mark} ${isOver}`;
    if (figures["Failure rate"].dataset.shown !== shown) {
      figures["Failure rate"].dataset.shown = shown;
      figures["Failure rate"].replaceChildren(element("span", "rate", meter(rate ?? 0, mark, isOver), element("span", "", rate === null ? "–" : percent(rate))));
    }
    say(figures[REFUSED], count(refused));
    say(figures["In flight"], count(circuit.inFlight ?? 0));
    figures[REFUSED].className = refused ? "" : "none";
    figures["In flight"].className = circuit.inFlight ? "" : "none";
  }

  showMore() {
    const {circuit} = this;
    const {mode, status} = circuit;
    hide(this.tag, !mode);
    hide(this.why, Boolean(mode));
    hide(this.actions, !this.actions.children.length);
    say(this.why, status === "closed" ? `Closed ${since(circuit)}.` : circuit.reason ?? "");
    if (mode) {
      this.tag.className = `tag ${classOf(status)}`;
      const {text, operator} = unsigned(mode.reason);
      say(this.tag.firstChild, text);
      const who = operator ? `Set by ${operator}` : "Set by hand";
      const end = mode.until ? `ends at ${clock(mode.until, false)}, in ${span(mode.until - now())}` : "ends only by a reset";
      say(this.tag.lastChild, `${who}; ${circuit.hasBreaker ? "" : "there is no breaker now; "}${end}.`);
    }
    this.facts.replaceChildren(...facts(circuit));
    const top = drawStrip(this.large, circuit, true, this.cursor);
    say(this.readout, this.cursor === null ? `Calls per second, 0 to ${count(top)}` : bucketAt(circuit, this.cursor));
    this.large.setAttribute("aria-valuenow", this.cursor === null ? 0 : Math.round(this.cursor - now()));
    this.large.setAttribute("aria-valuetext", this.cursor === null ? history(circuit) : this.readout.textContent);
  }

  setActions() {
    this.actions?.replaceChildren(...this.makeActions(this.circuit.name));
  }
}

// The folded line of a circuit that refuses calls shows the remaining wait and the reason.
function brief(circuit) {
  if (!REFUSING.includes(circuit.status)) return "";
  return [waitOf(circuit), circuit.mode?.reason ?? circuit.reason].filter(Boolean).join("; ");
}

function bucketAt(circuit, start) {
  const [, ok, failed, refused] = circuit.calls.find(([at]) => at === start) ?? [start, 0, 0, 0];
  const {status} = periods(circuit).findLast((period) => period.start < start + BUCKET) ?? {status: "closed"};
  const figures = [[ok, "succeeded"], [failed, "failed"], [refused, "refused"]];
  return `${clock(start)}: ${figures.map(([sum, word]) => `${perSecond(sum / secondsOf(start))}/s ${word}`).join(", ")}; ${lower(status)}`;
}
