// The outage lab, in development only: sets the sandbox's mode, and generates traffic to show the effect.

import {command, showCommands} from "./command.js";
import {byId, choice, element, hide, say, swatch} from "./dom.js";
import {eventsOf} from "./stream.js";
import {perSecond, percent} from "./words.js";

const MEANS = {
  healthy: "Answers at once.", failing: "Answers 503 at once.", slow: "Answers late.",
  hanging: "Never answers.", refusing: "Refuses connections, and cuts those that are open.",
  garbled: "Sends broken bodies.", flaky: "Some of the calls fail.",
};
const PARAMETERS = {
  slow: {name: "latency_seconds", label: "Latency", value: 3, min: .5, max: 10, step: .5, shown: (value) => `${value}\u00a0s`},
  flaky: {name: "failure_rate", label: "Share of faults", value: .5, min: .05, max: 1, step: .05, shown: percent},
};

let mode = null;
let traffic = null;
let lastTurn = Promise.resolve();
let inputs = {};

const send = (method, path, body, signal) => fetch(path, {method, signal, headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});

const setting = (body) => command("PUT", "sandbox/mode", body);
const sending = (body) => command("POST", "sandbox/traffic", body, "-N ");

// There may be no sandbox: only `serve` starts one, and its code can be deleted from the service.
export async function prepareLab() {
  const response = await fetch("sandbox/mode", {cache: "no-store"}).catch(() => null);
  if (!response?.ok) return;
  hide(byId("lab"), false);
  hide(byId("to-lab"), false);
  byId("modes").append(...Object.keys(MEANS).map((each) => {
    const label = choice("mode", false, [each], () => turn(each));
    inputs[each] = label.firstChild;
    return label;
  }));
  byId("parameter").lastChild.addEventListener("input", ({target}) => { PARAMETERS[mode].value = Number(target.value); showLab() });
  byId("parameter").lastChild.addEventListener("change", () => turn(mode));
  byId("speed").addEventListener("input", showLab);
  byId("speed").addEventListener("change", () => { if (traffic) changeSpeed() });
  byId("traffic").addEventListener("click", switchTraffic);
  byId("copy").addEventListener("click", copy);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) readMode() });
  takeMode(await response.json());
}

// The mode may have been set elsewhere, for example by the command that the lab shows.
export async function readMode() {
  if (mode === null) return;
  const response = await fetch("sandbox/mode", {cache: "no-store"}).catch(() => null);
  if (response?.ok) takeMode(await response.json());
}

function takeMode(report) {
  mode = report.mode;
  const parameter = PARAMETERS[mode];
  if (parameter) parameter.value = report[parameter.name] ?? parameter.value;
  for (const [each, input] of Object.entries(inputs)) input.checked = each === mode;
  showLab();
}

async function turn(wanted) {
  const parameter = PARAMETERS[wanted];
  const body = {mode: wanted, ...(parameter && {[parameter.name]: parameter.value})};
  // A fault has no visible effect without calls, so it also starts traffic.
  const startsTraffic = wanted !== "healthy" && !traffic;
  showCommands(setting(body), ...(startsTraffic ? [sending(flow())] : []));
  if (startsTraffic) startTraffic();
  // One after the other, so that the last of several quick clicks wins.
  const mine = lastTurn.then(() => send("PUT", "sandbox/mode", body).catch(() => null));
  lastTurn = mine;
  const response = await mine;
  if (response?.ok) {
    const report = await response.json();
    if (lastTurn === mine) {
      failed("");
      takeMode(report);
    }
    return;
  }
  failed(`The sandbox did not change its mode (${response ? `status ${response.status}` : "no response"}). Its log is in the terminal.`);
  for (const [each, input] of Object.entries(inputs)) input.checked = each === mode;
}

const failed = (text) => say(byId("lab-error"), text);

const flow = () => ({calls_per_second: Number(byId("speed").value)});

async function startTraffic() {
  stopTraffic();
  const mine = new AbortController();
  traffic = mine;
  showLab();
  try {
    const response = await send("POST", "sandbox/traffic", flow(), mine.signal);
    if (!response.ok) throw new Error(`status ${response.status}`);
    failed("");
    for await (const message of eventsOf(response)) if (message) showAnswers(message.answers);
    throw new Error("the service ended it");
  } catch (error) {
    if (!mine.signal.aborted) failed(`Traffic has stopped: ${error.message}.`);
  }
  if (traffic !== mine) return;
  traffic = null;
  showAnswers({});
  showLab();
}

const stopTraffic = () => traffic?.abort();

function switchTraffic() {
  if (traffic) {
    showCommands("# Ctrl+C ends the curl command that sends the traffic.");
    stopTraffic();
  } else {
    showCommands(sending(flow()));
    startTraffic();
  }
}

// The service has no command for this: the running one ends, and another one begins.
function changeSpeed() {
  showCommands("# Ctrl+C ends the curl command that sends the traffic.", sending(flow()));
  startTraffic();
}

const kindOf = (status) => (status < 400 ? "ok" : status === "503" ? "refused" : "failed");

function showAnswers(answers) {
  const shown = {200: 0, 502: 0, 503: 0, ...answers};
  byId("answers").replaceChildren(...Object.entries(shown).map(([status, sum]) =>
    element("span", "", swatch(kindOf(status)), `${status} `, element("b", "", `${perSecond(sum)}/s`))));
}

function showLab() {
  const parameter = PARAMETERS[mode];
  const [words, range] = byId("parameter").children;
  say(byId("means"), MEANS[mode] ?? `The mode ${mode} was set elsewhere.`);
  hide(byId("parameter"), !parameter);
  if (parameter) {
    say(words.firstChild, parameter.label);
    say(words.lastChild, parameter.shown(parameter.value));
    Object.assign(range, {min: parameter.min, max: parameter.max, step: parameter.step, value: parameter.value});
  }
  say(byId("speed-shown"), `${byId("speed").value} calls per second`);
  say(byId("traffic"), traffic ? "Stop" : "Start");
  if (!byId("answers").children.length) showAnswers({});
}

async function copy() {
  await navigator.clipboard?.writeText(byId("curl").textContent);
  say(byId("copy"), "Copied");
}
