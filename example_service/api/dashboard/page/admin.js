// Orders by an operator. The page asks for the token once and keeps it in memory only.

import {command, showCommands} from "./command.js";
import {byId, element, hide, say} from "./dom.js";
import {signed} from "./words.js";

const ORDERS = {
  "reset": ["Reset", "Closes the circuit, ends any mode and clears the counts."],
  "force-open": ["Force open", "Every call is refused until the mode ends. The circuit is half-open then."],
  "disable": ["Disable", "Every call is let through, and nothing opens the circuit."],
  "shadow": ["Shadow", "The circuit applies its rules and counts calls, but refuses none."],
};

let token = null;
let order = null;
let isSending = false;
let isNeeded = false;
let changed = () => {};
let settle = null;

export const headers = () => (token ? {Authorization: `Bearer ${token}`} : {});

export function prepareAdmin(onChange) {
  changed = onChange;
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  byId("admin").addEventListener("click", () => (token && !isNeeded ? lock() : ask()));
  byId("unlock").addEventListener("submit", unlock);
  byId("order").addEventListener("submit", carryOut);
}

export function showAdmin(service) {
  if (!service.hasAdmin && token) lock();
  hide(byId("admin"), !service.hasAdmin);
  say(byId("admin"), token ? "Lock admin" : "Unlock admin");
}

// In production, the event stream also requires the token.
export function askForToken() {
  isNeeded = true;
  if (token) say(byId("token-error"), "This token was refused.");
  token = null;
  say(byId("admin"), "Unlock admin");
  hide(byId("admin"), false);
  return new Promise((done) => { settle = done; ask() });
}

function ask() {
  byId("token").value = "";
  byId("unlock").showModal();
}

function lock() {
  token = null;
  say(byId("admin"), "Unlock admin");
  changed();
}

async function unlock(event) {
  event.preventDefault();
  const given = byId("token").value;
  const response = await fetch("admin/circuit-breakers", {headers: {Authorization: `Bearer ${given}`}, cache: "no-store"}).catch(() => null);
  if (!response?.ok) {
    say(byId("token-error"), response?.status === 401 ? "This token was refused." : "The service did not respond as expected. Try again.");
    return;
  }
  token = given;
  isNeeded = false;
  say(byId("token-error"), "");
  byId("token").value = "";
  byId("unlock").close();
  say(byId("admin"), "Lock admin");
  settle?.();
  settle = null;
  changed();
}

export function actionsFor(name) {
  if (!token) return [];
  return Object.entries(ORDERS).map(([action, [word]]) => {
    const button = element("button", "button", word);
    button.setAttribute("aria-label", `${word} ${name}`);
    button.addEventListener("click", () => prepareOrder(name, action));
    return button;
  });
}

function prepareOrder(name, action) {
  const [word, means] = ORDERS[action];
  order = {name, action};
  say(byId("order-title"), `${word} ${name}`);
  say(byId("order-means"), means);
  hide(byId("order-end"), action === "reset");
  byId("reason").value = "";
  byId("reason").required = action !== "reset";
  say(byId("order-error"), "");
  say(byId("order").querySelector(".primary"), `${word} ${name}`);
  byId("order").showModal();
}

async function carryOut(event) {
  event.preventDefault();
  if (isSending) return;
  const {name, action} = order;
  const reason = signed(byId("reason").value.trim(), byId("operator").value.trim());
  const seconds = Number(byId("end").value) || null;
  const body = {...(reason && {reason}), ...(action !== "reset" && {seconds})};
  const path = `admin/circuit-breakers/${encodeURIComponent(name)}/${action}`;
  isSending = true;
  const response = await fetch(path, {
    method: "POST", headers: {...headers(), "Content-Type": "application/json"}, body: JSON.stringify(body),
  }).catch(() => null);
  isSending = false;
  if (!response?.ok) {
    say(byId("order-error"), response ? await faultOf(response) : "The service did not respond. Try again.");
    return;
  }
  byId("order").close();
  showCommands(command("POST", path, body, '-H "Authorization: Bearer $ADMIN_TOKEN" '));
}

async function faultOf(response) {
  const problem = await response.json().catch(() => ({}));
  return [problem.detail, ...(problem.errors ?? []).map(({message}) => message)].filter(Boolean).join(" ") || `Refused with status ${response.status}.`;
}
