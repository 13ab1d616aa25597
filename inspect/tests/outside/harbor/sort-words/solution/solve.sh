#!/bin/bash
set -e
cd /app
sort words.txt > sorted.txt
