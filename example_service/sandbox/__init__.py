"""A payment provider that misbehaves on request, for development and tests only.

`python -m example_service.sandbox` serves two loopback addresses: the *provider* API, which fails
in the ways of real providers, and the *control* API, which always works and sets the mode. A mode
applies from one `PUT /sandbox/mode` to the next.

| mode | response of the provider | when a valid charge is recorded |
|---|---|---|
| `healthy` | immediate | before the response |
| `failing` | 503, immediate | never |
| `slow` | after `latency_seconds` (default 1) | on arrival |
| `hanging` | none; the connection is aborted when the mode changes | on arrival |
| `refusing` | none; connections are refused, and existing ones were aborted | never |
| `garbled` | a broken body, one of `Damage` | on arrival, for a random half of the calls |
| `late` | to a charge, when it arrives; to other calls, immediate | after `latency_seconds` |
| `intercepted` | one of `Impostor` | on arrival, for a random half of the calls |
| `flaky` | immediate, or a fault from `failing` to `garbled` | as in the row of the fault |

`flaky` picks a random share of the calls, `failure_rate` (default 0.5), and a fault for each, all
equally likely. As a single call cannot be refused, its connection is aborted instead. A seed
makes the random choices repeatable.

A caller that receives no response, or an unreadable one, cannot know whether the charge was made.
It can safely repeat the charge with the same `Idempotency-Key`, because each key is charged at most
once. `GET /v1/charges/{key}` returns the outcome of a key. `POST /v1/charges/{key}/cancel` ensures
that a key is never charged if it has no outcome yet. An outcome is final.

A late charge arrives even if its caller has given up or the mode has changed.
`POST /sandbox/late-charges/deliver` at the control address makes all of them arrive immediately.

A charge for the customer `DECLINED_CUSTOMER_ID` is declined with 402.
"""
