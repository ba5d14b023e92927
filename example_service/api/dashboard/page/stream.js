// Reads the event stream with `fetch`, because an `EventSource` cannot send the token.

const SILENCE_SECONDS = 5;
const RETRY_SECONDS = [.5, 1, 2, 4, 5];

export async function* eventsOf(response) {
  let text = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  while (true) {
    const {done, value} = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const lines = event.split("\n").filter((line) => line.startsWith("data: "));
      yield lines.length ? JSON.parse(lines.map((line) => line.slice(6)).join("\n")) : null;
    }
  }
}

// Calls `onMessage` with each message and reconnects forever. Awaits `onRefused` if the token is missing or wrong.
export async function follow(url, {headers, onMessage, onLost, onRefused}) {
  for (let failures = 0; ; failures += 1) {
    const abort = new AbortController();
    let watchdog = setTimeout(() => abort.abort(), 1000 * SILENCE_SECONDS);
    try {
      const response = await fetch(url, {headers: headers(), cache: "no-store", signal: abort.signal});
      if (response.status === 401) {
        clearTimeout(watchdog);
        await onRefused();
        failures = -1;
        continue;
      }
      if (!response.ok) throw new Error(`status ${response.status}`);
      for await (const message of eventsOf(response)) {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), 1000 * SILENCE_SECONDS);
        if (message) onMessage(message);
        failures = -1;
      }
      failures = Math.max(failures, 0);
    } catch (error) {
      if (error instanceof SyntaxError) console.error(error);
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
    onLost();
    await new Promise((done) => setTimeout(done, 1000 * RETRY_SECONDS[Math.min(Math.max(failures, 0), RETRY_SECONDS.length - 1)]));
  }
}
