// A strip: a bar chart of the calls in the last five minutes, above a lane with the states.

import {BUCKET, now, periods, secondsOf, WINDOW} from "./circuits.js";
import {drawn} from "./dom.js";
import {classOf, clock, lower} from "./words.js";

const LARGE = {bars: 88, lane: {y: 94, height: 18}, gap: 2, text: 127};
const SMALL = {bars: 20, lane: {y: 23, height: 4}, gap: 1.4, text: null};
const STEPS = [1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500];

function roundedUp(value) {
  const scale = value > 500 ? 10 ** (Math.ceil(Math.log10(value)) - 2) : 1;
  return scale * (STEPS.find((step) => step * scale >= value) ?? Math.ceil(value / scale));
}

// Draws a strip, and returns the top of its scale in calls per second.
export function drawStrip(strip, circuit, isLarge, cursor = null) {
  const shape = isLarge ? LARGE : SMALL;
  // CSS stretches a small strip. A large one contains text, so it is drawn at its size in pixels.
  const width = isLarge ? strip.clientWidth : WINDOW;
  if (!width) return 0;
  const x = (second) => ((second - now() + WINDOW) * width) / WINDOW;
  const top = roundedUp(Math.max(0, ...circuit.calls.map(([start, ...calls]) => calls.reduce((a, b) => a + b) / secondsOf(start))));
  const nodes = isLarge ? [.5, shape.bars / 2 + .5, shape.bars + .5].map((y) => drawn("path", {class: "grid", d: `M0 ${y}H${width}`})) : [];
  for (const period of periods(circuit)) nodes.push(...lane(period, x, shape, isLarge));
  nodes.push(...bars(circuit, x, shape, top, (BUCKET * width) / WINDOW - shape.gap));
  if (isLarge) nodes.push(...minutes(x, width), ...(cursor === null ? [] : [line(x(cursor + BUCKET / 2))]));
  strip.replaceChildren(...nodes);
  return top;
}

const line = (x) => drawn("path", {class: "cursor", d: `M${x} 0V112`});

// In the lane, closed is a line, half-open a block of half the height, and every other state a full block.
function lane({status, start, end}, x, {bars: height, lane: at}, isLarge) {
  const left = x(start);
  const wide = Math.max(2, x(end) - left);
  if (status === "closed") return [drawn("path", {class: "wire closed", d: `M${left} ${at.y + at.height / 2}h${wide}`})];
  const high = status === "half_open" ? at.height / 2 : at.height;
  const block = {x: left + .5, y: at.y + at.height - high + .5, width: Math.max(2, wide - 1), height: high - 1, rx: isLarge ? 3 : 1};
  const nodes = [
    drawn("rect", {class: `band ${classOf(status)}`, x: left, width: wide, height}),
    drawn("rect", {class: `lane ${classOf(status)}`, ...block}),
  ];
  if (isLarge && high === at.height && wide > 14 + 6.5 * lower(status).length) {
    nodes.push(drawn("text", {class: `in-lane ${classOf(status)}`, x: left + 7, y: at.y + 13}, lower(status)));
  }
  return nodes;
}

function bars({calls}, x, shape, top, wide) {
  const paths = {ok: "", failed: "", refused: ""};
  for (const [start, ok, failed, refused] of calls) {
    let y = shape.bars;
    for (const [kind, sum] of [["failed", failed], ["ok", ok], ["refused", refused]]) {
      const height = (sum / secondsOf(start) / top) * (shape.bars - 4);
      if (sum) paths[kind] += `M${x(start).toFixed(1)} ${(y - height).toFixed(1)}h${wide.toFixed(1)}v${height.toFixed(1)}h-${wide.toFixed(1)}z`;
      y -= height;
    }
  }
  return Object.entries(paths).filter(([, d]) => d).map(([kind, d]) => drawn("path", {class: kind, d}));
}

function minutes(x, width) {
  const nodes = [drawn("text", {x: width, y: LARGE.text, "text-anchor": "end"}, "now")];
  for (let minute = 60 * Math.ceil((now() - WINDOW) / 60); minute < now() - 12; minute += 60) {
    if (x(minute) > 16 && x(minute) < width - 44) nodes.push(drawn("text", {x: x(minute), y: LARGE.text, "text-anchor": "middle"}, clock(minute, false)));
  }
  return nodes;
}
