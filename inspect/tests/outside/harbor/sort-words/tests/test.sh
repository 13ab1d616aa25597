#!/bin/bash
. "${TEST_DIR:-/tests}/words.sh"
if [ "$(words /app/sorted.txt)" = "$EXPECTED" ]; then reward=1; else reward=0; fi
printf '{"reward": %d, "checked": 1}\n' "$reward" > /logs/verifier/reward.json
