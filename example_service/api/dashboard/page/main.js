// The page: connects its parts, and redraws them after each message.

import {actionsFor, askForToken, headers, prepareAdmin, showAdmin} from "./admin.js";
import {all, freeze, known, take} from "./circuits.js";
import {byId, element, say} from "./dom.js";
import {prepareLab, readMode} from "./lab.js";
import {prepareList, showActions, showList, unfold} from "./list.js";
import {follow} from "./stream.js";
import {showTimeline} from "./timeline.js";
import {showVerdict} from "./verdict.js";
import {clock} from "./words.js";

let isReady = false;
let isConnected = false;

// The page is not redrawn while text is selected, so that it can be copied.
const isSelecting = () => !document.getSelection().isCollapsed && !document.activeElement?.matches("input");

function show() {
  if (!isReady || isSelecting()) return;
  showInstance();
  showVerdict();
  showList();
  showTimeline();
  const open = all().filter(({status}) => status === "open").length;
  const title = `${open ? `● ${open} open, ` : ""}${known.service.name}`;
  if (document.title !== title) document.title = title;
}

function showHeader() {
  const {service} = known;
  say(byId("service"), service.name);
  byId("about").replaceChildren(element("span", "", service.version), " ",
    element("span", "environment", service.environment), " ", element("span", "instance"));
  showAdmin(service);
}

// Redrawn with every message, because the workers can change.
function showInstance() {
  const {service, workers} = known;
  say(byId("about").lastChild, workers.length > 1 ? `${service.instance}, ${workers.length} workers` : service.instance);
}

function onMessage(message) {
  const isFirst = !isReady;
  take(message);
  isReady = true;
  if (!isConnected || message.service) showHeader();
  if (isFirst) prepareSide();
  if (message.timeline) readMode();
  isConnected = true;
  byId("link").classList.remove("off");
  say(byId("link").lastChild, "Live");
  byId("lost").replaceChildren();
  document.body.classList.remove("is-lost");
  // A hidden page gets no animation frames, but its title must show the open circuits.
  if (document.hidden) show();
  else requestAnimationFrame(show);
}

// The page is shown with the lab, which would otherwise move the transitions when it comes. It is shown one frame after
// the list is drawn, because on a slow machine the lab can be there first.
async function prepareSide() {
  try {
    if (known.service.environment === "development") await prepareLab();
  } finally {
    requestAnimationFrame(() => requestAnimationFrame(() => document.body.classList.add("is-ready")));
  }
}

function onLost() {
  if (!isConnected && isReady) return;
  freeze();
  isConnected = false;
  const at = clock(known.at ?? Date.now() / 1000);
  byId("link").classList.add("off");
  say(byId("link").lastChild, `Disconnected since ${at}`);
  const text = isReady ? `No answer since ${at}: what you see is from then. Trying again.` : "The service does not answer. Trying again.";
  if (byId("lost").textContent !== text) byId("lost").replaceChildren(element("p", "lost", element("span", "page", text)));
  document.body.classList.add("is-lost");
}

function goToHash() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (id.startsWith("circuit-")) unfold(id.slice("circuit-".length));
}

addEventListener("hashchange", goToHash);
// A second click on the same link does not change the hash, so there is no hashchange event.
document.addEventListener("click", ({target}) => {
  const link = target.closest?.("a[href^='#circuit-']");
  if (link && link.hash === location.hash) goToHash();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input:not([type=radio], [type=range]), select, dialog")) return;
  event.preventDefault();
  byId("search").focus();
});
document.addEventListener("selectionchange", () => { if (!isSelecting()) requestAnimationFrame(show) });
addEventListener("resize", () => requestAnimationFrame(show));

prepareList(actionsFor);
prepareAdmin(showActions);
follow("dashboard/events", {headers, onMessage, onLost, onRefused: () => {
  say(byId("verdict").querySelector("h1"), "This dashboard asks for the admin token");
  say(byId("link").lastChild, "Locked");
  document.body.classList.add("is-locked");
  return askForToken();
}});
