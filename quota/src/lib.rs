//! Quota policy: ledgers, token buckets with debt, windows and classes. Pure: no IO, no clock.
