//go:build !linux

package main

func diskRows() []row { return nil }
