// What a click has done, as commands for a terminal.

import {byId, hide, say} from "./dom.js";

export function command(method, path, body, options = "") {
  // A single quote would end the text for the shell.
  const text = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${options}-X ${method} ${new URL(path, document.baseURI).href} \\\n  -H 'Content-Type: application/json' \\\n  -d '${text}'`;
}

// Shows them in the order in which the click has done it.
export function showCommands(...commands) {
  say(byId("curl-title"), commands.length > 1 ? `The last click as ${commands.length} commands` : "The last click as a command");
  say(byId("curl"), commands.join("\n"));
  say(byId("copy"), "Copy");
  hide(byId("copy"), false);
}
