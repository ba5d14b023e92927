"""The payment provider that misbehaves on request, for development and tests only.

`python -m example_service.sandbox` serves two loopback addresses from one event loop: the
*provider*, which a switch can break in every way that providers break, and the *control*, which
always answers and holds the switch. A mode holds from its `PUT /sandbox/mode` to the next one.

| mode | what a caller of the provider sees | when a valid charge is recorded |
|---|---|---|
| `healthy` | an answer at once | before the answer |
| `failing` | 503 at once | never |
| `slow` | the answer after `latency_seconds`, 1 unless given | on arrival |
| `hanging` | no answer; the connection is cut when the mode changes | on arrival |
| `refusing` | connections are refused, live ones were cut | never |
| `garbled` | a broken body, one of `Damage` | on arrival, for a seeded half of the calls |
| `late` | a charge is answered once it has arrived; all else at once | `latency_seconds` later |
| `intercepted` | the answer of an `Impostor` | on arrival, for a seeded half of the calls |
| `flaky` | now an answer, now one of the faults above | as the row of the fault says |

`flaky` draws one of the first five faults for a seeded share of the calls, `failure_rate` (0.5
unless given), all equally likely. A single call cannot be refused: its connection is cut instead.

So a caller that got no answer, or an unreadable one, cannot know whether it has charged. It may
send the same charge with the same `Idempotency-Key` again, as often as it likes: one key is charged
once. `GET /v1/charges/{key}` shows what has become of it, and `POST /v1/charges/{key}/cancel` makes
sure that it is never charged, unless it was. Whatever has become of a key is final.

A late charge is on its way until its time has come, whether its caller waits or not and whatever
mode is set; `POST /sandbox/late-charges/deliver` at the control address lets all of them arrive.

A charge for the customer `DECLINED_CUSTOMER_ID` is declined with 402.
"""
