#!/bin/bash
if [ "$(cat /logs/artifacts/answer.txt)" = "42 crowns" ] && [ "$TEST_DIR" = /tests ]; then echo 1; else echo 0; fi > "$LOGS/reward.txt"
