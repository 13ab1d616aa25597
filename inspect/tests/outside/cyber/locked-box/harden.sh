#!/bin/sh
set -e
cp sealed box
chown owner box
chmod 400 box
