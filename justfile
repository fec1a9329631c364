# `just` lists these.

default:
    @just --list

# Everything CI runs.
ci:
    .ci/run

# The tests, or some of them.
test *ARGS:
    tests/run {{ARGS}}

# The tests at full size: a million blobs, a million requests.
test-large:
    TEST_BLOBS=1000000 TEST_REQUESTS=1000000 tests/run case_48 leak_nothing

# Fifty power cuts of each kind, a hundred kills, and the simulator without one sync after the other.
test-durability:
    TEST_CUTS=50 TEST_KILLS=100 tests/run --run-ignored all -E 'binary(power)'
    tests/mutants

# Every order in which threads can meet, and AddressSanitizer.
test-memory:
    tests/interleavings
    tests/sanitize

# Half an hour of fuzzing each.
fuzz:
    fuzz/run 1800

# What may be linked.
deny:
    cargo deny check licenses bans sources

# A server to play with.
demo:
    cargo run --release -- serve --path /tmp/packhouse-demo --no-auth --listen 127.0.0.1:8000
