// Creates and changes elements. Data from the service is only inserted as text, never as HTML.

import {classOf, WORDS} from "./words.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

export function drawn(tag, attributes, ...content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

// Sets a text only if it differs, so that selections are kept and screen readers do not announce it again.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function hide(node, isHidden) {
  if (node.hidden !== isHidden) node.hidden = isHidden;
}

export function glyph(status) {
  return drawn("svg", {class: `glyph ${classOf(status)}`, "aria-hidden": "true"}, drawn("use", {href: `#${classOf(status)}`}));
}

export const badge = (status) => element("span", `state ${classOf(status)}`, glyph(status), WORDS[status]);

export function swatch(kind) {
  return drawn("svg", {class: "strip", "aria-hidden": "true"}, drawn("rect", {class: kind, x: .5, y: .5, width: 9, height: 11}));
}

// Allows line breaks in a name after the characters / . : and _ only.
export function breakable(name) {
  return name.split(/(?<=[/.:_])/).flatMap((part, at) => (at ? [element("wbr"), part] : [part]));
}

export function choice(group, isChecked, content, chosen) {
  const input = Object.assign(element("input"), {type: "radio", name: group, checked: isChecked});
  input.addEventListener("change", chosen);
  return element("label", "", input, element("span", "", ...content));
}
