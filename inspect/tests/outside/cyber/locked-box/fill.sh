#!/bin/sh
cp sealed box
