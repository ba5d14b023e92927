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
| `flaky` | now an answer, now one of the faults above | as the row of the fault says |

`flaky` draws a fault for a seeded share of the calls, `failure_rate` (0.5 unless given), all five
equally likely. A single call cannot be refused: its connection is cut instead.

So a caller that got no answer, or an unreadable one, cannot know whether it has charged. It may
send the same charge with the same `Idempotency-Key` again, as often as it likes: one key is charged
once. `GET /v1/charges/{key}` tells it, too.

A charge for the customer `DECLINED_CUSTOMER_ID` is declined with 402 and never recorded.
"""
