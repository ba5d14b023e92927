// Formats states, numbers and times.

// Ordered by severity. The first three refuse calls; forced open, disabled and shadow are set by operators.
export const WORDS = {
  open: "Open", half_open: "Half-open", forced_open: "Forced open",
  disabled: "Disabled", shadow: "Shadow", closed: "Closed",
};
export const SEVERITY = Object.keys(WORDS);
export const REFUSING = SEVERITY.slice(0, 3);
export const BY_HAND = SEVERITY.slice(2, 5);

export const classOf = (status) => status.replace("_", "-");
export const lower = (status) => WORDS[status].toLowerCase();

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const tenths = new Intl.NumberFormat("en", {minimumFractionDigits: 1, maximumFractionDigits: 1});

export const count = (value) => whole.format(value);
export const perSecond = (rate) => (rate > 0 && rate < 9.95 ? tenths : whole).format(rate);
export const percent = (share) => `${(share > 0 && share < .0995 ? tenths : whole).format(100 * share)}\u00a0%`;

// Non-breaking spaces keep a number and its unit on one line.
export function span(seconds) {
  const rest = Math.max(0, Math.ceil(seconds));
  if (rest < 90) return `${rest}\u00a0s`;
  if (rest < 600) return `${Math.floor(rest / 60)}\u00a0min\u00a0${rest % 60}\u00a0s`;
  if (rest < 5400) return `${Math.floor(rest / 60)}\u00a0min`;
  if (rest < 129600) return `${Math.round(rest / 3600)}\u00a0h`;
  return `${Math.round(rest / 86400)}\u00a0days`;
}

const date = (second) => new Date(1000 * second);

export function clock(second, withSeconds = true) {
  return date(second).toLocaleTimeString("en-GB").slice(0, withSeconds ? 8 : 5);
}

export function day(second) {
  return date(second).toLocaleDateString("en-GB", {weekday: "long", day: "numeric", month: "long"});
}

export function moment(second, now) {
  return day(second) === day(now) ? clock(second) : `${day(second)}, ${clock(second, false)}`;
}

export const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

// All operators share one token, so the reason ends with the operator's name.
export const signed = (reason, operator) => (operator ? `${reason} (by ${operator})`.trim() : reason);

export function unsigned(reason) {
  const [, text, operator] = reason.match(/^(.*?) ?\(by ([^()]+)\)$/) ?? [null, reason, ""];
  return {text, operator};
}

export function zone() {
  const offset = new Date().toLocaleString("en-GB", {timeZoneName: "longOffset"}).split(" ").at(-1).replace("GMT", "UTC");
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return name === "UTC" ? name : `${name}, ${offset === "UTC" ? "UTC+00:00" : offset}`;
}
