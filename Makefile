# `make demo` and `make test` install everything they need on a bare Debian 12 machine (as root).
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install dev demo test check bench clean
